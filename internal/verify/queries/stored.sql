-- What the table holds by topic and partition: rows, those before the start of the log and those behind what is committed, and the largest
-- offset. $1: numbers of partitions, $2: where the log of each begins, $3: what is committed of it.
SELECT
    toString(_topic) AS topic,
    toUInt16(_partition) AS partition,
    count() AS rows,
    countIf(_offset < transform(toInt64(_partition), CAST($1, 'Array(Int64)'), CAST($2, 'Array(Int64)'), toInt64(0))) AS before,
    countIf(_offset >= transform(toInt64(_partition), CAST($1, 'Array(Int64)'), CAST($3, 'Array(Int64)'), toInt64(0))) AS after,
    toInt64(max(_offset)) AS newest
FROM usage_tracking
GROUP BY topic, partition
