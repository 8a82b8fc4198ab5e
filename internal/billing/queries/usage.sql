-- The usage rows of a company ($1) and a billing period ($2), net of voids, by user, tier, service and month of the timestamp, and by two questions. behind: does the
-- row stand in a topic ($3) at or behind the position of its partition ($4: partitions, $5: their positions)? mismatched: did its user belong to another company then ($6:
-- users, of whom the first is none, $7 and $8: from when until when, in milliseconds, by the user's place)?
SELECT
    toString(user_id) AS user,
    toString(subscription_tier) AS tier,
    toString(service_name) AS service,
    toUInt32(toYYYYMM(timestamp)) AS month,
    toUInt8(_topic = $3 AND _offset >= transform(toInt64(_partition), CAST($4, 'Array(Int64)'), CAST($5, 'Array(Int64)'), toInt64(9223372036854775807))) AS behind,
    toUInt8(arrayExists((f, t) -> toUnixTimestamp64Milli(timestamp) >= f AND toUnixTimestamp64Milli(timestamp) < t,
        CAST($7, 'Array(Array(Int64))')[transform(toString(user_id), CAST($6, 'Array(String)'), range(toUInt32(1), toUInt32(length(CAST($6, 'Array(String)')) + 1)), toUInt32(1))],
        CAST($8, 'Array(Array(Int64))')[transform(toString(user_id), CAST($6, 'Array(String)'), range(toUInt32(1), toUInt32(length(CAST($6, 'Array(String)')) + 1)), toUInt32(1))])) AS mismatched,
    toInt64(sum(sign)) AS calls,
    toInt64(sum(sign * toInt64(data_points_consumed))) AS points,
    CAST(sum(sign * revenue_attributed), 'Decimal(38, 6)') AS attributed
FROM usage_tracking
WHERE company_id = $1 AND billing_period = $2
GROUP BY user, tier, service, month, behind, mismatched
