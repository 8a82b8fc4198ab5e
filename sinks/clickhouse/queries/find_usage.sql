-- The usage of the external table keys that the table holds, by identity, company, user and timestamp: rows of sign 1. $1 and $2: the oldest
-- and the newest timestamp of the keys, in milliseconds. Of a usage that landed twice both rows are there. Decimals come as their digits. The
-- last row is the end row: an answer that was cut off lacks it.
SELECT n, tier, service, endpoint, points, processing, period, revenue, topic, partition, offset
FROM (
    SELECT k.n AS n,
           toString(stored.subscription_tier) AS tier, toString(stored.service_name) AS service, toString(stored.api_endpoint) AS endpoint,
           stored.data_points_consumed AS points, reinterpretAsInt64(stored.processing_time_ms) AS processing,
           toString(stored.billing_period) AS period, reinterpretAsInt64(stored.revenue_attributed) AS revenue,
           toString(stored._topic) AS topic, stored._partition AS partition, stored._offset AS offset
    FROM (
        SELECT * FROM usage_tracking
        PREWHERE timestamp >= fromUnixTimestamp64Milli(toInt64($1), 'UTC') AND timestamp <= fromUnixTimestamp64Milli(toInt64($2), 'UTC')
          AND timestamp IN (SELECT at FROM keys)
          AND (company_id, user_id, timestamp, event_id) IN (SELECT company_id, user_id, at, event_id FROM keys)
        WHERE sign = 1
    ) AS stored
    INNER JOIN keys AS k
        ON stored.company_id = k.company_id AND stored.user_id = k.user_id AND stored.timestamp = k.at
       AND stored.event_id = k.event_id AND stored.event_source = k.source
    UNION ALL
    SELECT toUInt32(4294967295), '', '', '', toUInt32(0), toInt64(0), '', toInt64(0), '', toUInt16(0), toInt64(0)
)
ORDER BY n, topic, partition, offset
