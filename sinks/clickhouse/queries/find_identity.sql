-- Which events of the external table keys the table holds already, by identity alone, among those of a topic ($1) and partition ($2) from
-- an offset ($3) on. The last row is the end row: an answer that was cut off lacks it.
SELECT n, same, topic, partition, offset
FROM (
    SELECT k.n AS n, false AS same, toString(stored._topic) AS topic, stored._partition AS partition, stored._offset AS offset
    FROM (
        SELECT event_id, event_source, _topic, _partition, _offset FROM usage_tracking
        WHERE _topic = $1 AND _partition = $2 AND _offset >= $3 AND event_id IN (SELECT event_id FROM keys)
    ) AS stored
    INNER JOIN keys AS k ON stored.event_id = k.event_id AND stored.event_source = k.source
    UNION ALL
    SELECT toUInt32(4294967295), false, '', toUInt16(0), toInt64(0)
)
ORDER BY n
