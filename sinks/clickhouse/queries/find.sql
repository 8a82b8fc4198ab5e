-- Which events of the external table keys the table holds already, by identity, company, user and timestamp, and whether the rest is the
-- same too. $1 and $2: the oldest and the newest timestamp of the keys, in milliseconds. The key of the table finds the rows, of which the
-- timestamps are read first: where there are so many keys that every granule may hold one, most hold no row of their times. The join finds which
-- event each one is. Decimals are compared by their digits: multiplying large ones into integers would overflow.
-- The last row is the end row: an answer that was cut off lacks it.
SELECT n, same, topic, partition, offset
FROM (
    SELECT k.n AS n,
           toBool(stored.sign = k.sign AND stored.subscription_tier = k.tier AND stored.service_name = k.service AND stored.api_endpoint = k.endpoint
               AND stored.data_points_consumed = k.points AND reinterpretAsInt64(stored.processing_time_ms) = k.processing
               AND stored.billing_period = k.period AND reinterpretAsInt64(stored.revenue_attributed) = k.revenue) AS same,
           toString(stored._topic) AS topic, stored._partition AS partition, stored._offset AS offset
    FROM (
        SELECT * FROM usage_tracking
        PREWHERE timestamp >= fromUnixTimestamp64Milli(toInt64($1), 'UTC') AND timestamp <= fromUnixTimestamp64Milli(toInt64($2), 'UTC')
          AND timestamp IN (SELECT at FROM keys)
          AND (company_id, user_id, timestamp, event_id) IN (SELECT company_id, user_id, at, event_id FROM keys)
    ) AS stored
    INNER JOIN keys AS k
        ON stored.company_id = k.company_id AND stored.user_id = k.user_id AND stored.timestamp = k.at
       AND stored.event_id = k.event_id AND stored.event_source = k.source
    UNION ALL
    SELECT toUInt32(4294967295), false, '', toUInt16(0), toInt64(0)
)
ORDER BY n
