-- The usage rows of a company ($1) of all billing periods but one ($2), by period, month of the timestamp, mismatched (as in usage.sql, with $6 to $8), and class: 0, there at the
-- company's last export already; 1, usage that came since; 2, voids that came since. Came since: in a topic ($9), at or behind that export's position of its partition
-- ($10, $11). Rows behind the present position ($3 to $5, as in usage.sql) are left out.
SELECT
    toString(billing_period) AS period,
    toUInt32(toYYYYMM(timestamp)) AS month,
    toUInt8(arrayExists((f, t) -> toUnixTimestamp64Milli(timestamp) >= f AND toUnixTimestamp64Milli(timestamp) < t,
        CAST($7, 'Array(Array(Int64))')[transform(toString(user_id), CAST($6, 'Array(String)'), range(toUInt32(1), toUInt32(length(CAST($6, 'Array(String)')) + 1)), toUInt32(1))],
        CAST($8, 'Array(Array(Int64))')[transform(toString(user_id), CAST($6, 'Array(String)'), range(toUInt32(1), toUInt32(length(CAST($6, 'Array(String)')) + 1)), toUInt32(1))])) AS mismatched,
    multiIf(_topic != $9 OR _offset < transform(toInt64(_partition), CAST($10, 'Array(Int64)'), CAST($11, 'Array(Int64)'), toInt64(0)), toUInt8(0),
        sign = 1, toUInt8(1), toUInt8(2)) AS class,
    toInt64(count()) AS identities,
    toInt64(sum(sign)) AS calls,
    toInt64(sum(sign * toInt64(data_points_consumed))) AS points,
    CAST(sum(sign * revenue_attributed), 'Decimal(38, 6)') AS attributed
FROM usage_tracking
WHERE company_id = $1 AND billing_period != $2
    AND NOT (_topic = $3 AND _offset >= transform(toInt64(_partition), CAST($4, 'Array(Int64)'), CAST($5, 'Array(Int64)'), toInt64(9223372036854775807)))
GROUP BY period, month, mismatched, class
