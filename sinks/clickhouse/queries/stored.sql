-- The rows of an insert: of a topic ($1), partition ($2) and range of offsets ($3 to $4, exclusive) with one deadline ($5, in
-- milliseconds). Duplicates of a place with one deadline are one row: a server that lost its deduplication log may have taken the same
-- request twice. The last row is the end row: an answer that was cut off lacks it.
SELECT * FROM (
    SELECT event_id, toString(event_source), user_id, company_id, toUnixTimestamp64Milli(timestamp), toString(subscription_tier),
           toString(service_name), toString(api_endpoint), data_points_consumed, reinterpretAsInt64(processing_time_ms),
           toString(billing_period), reinterpretAsInt64(revenue_attributed), sign, toString(voids_source), voids_id, _offset, false AS end
    FROM usage_tracking
    WHERE _topic = $1 AND _partition = $2 AND _offset >= $3 AND _offset < $4 AND toUnixTimestamp64Milli(_insert_by) = $5
    LIMIT 1 BY _offset
    UNION ALL
    SELECT '', '', '', '', toInt64(0), '', '', '', toUInt32(0), toInt64(0), '', toInt64(0), toInt8(0), '', '', toInt64(0), true
)
ORDER BY end, _offset
