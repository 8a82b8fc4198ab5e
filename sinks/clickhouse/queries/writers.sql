-- What is known of all writers, for the one ($1) of a topic ($2) with $3 partitions and its consumer group ($4); $5: for how many
-- milliseconds a writer is believed after it was last seen. In milliseconds: when it was first announced; when the first writer of this
-- topic and number of partitions was; when one of another was last seen; whether one of another topic lives; when the own group was first
-- announced; the first other group of the topic that lives, when that was first announced and last seen; and the clock. There is always
-- one row, so an answer that was cut off is an error. An aggregate without rows is 0.
SELECT toUnixTimestamp64Milli(minIf(first, writer = $1 AND topic = $2 AND partitions = $3)),
       toUnixTimestamp64Milli(minIf(first, topic = $2 AND partitions = $3)),
       toUnixTimestamp64Milli(maxIf(last, NOT (topic = $2 AND partitions = $3))),
       toBool(countIf(live AND topic != $2) > 0),
       toUnixTimestamp64Milli(minIf(first, live AND topic = $2 AND group = $4)),
       argMinIf(group, (first, group), live AND topic = $2 AND group != $4),
       toUnixTimestamp64Milli(minIf(first, live AND topic = $2 AND group != $4)),
       toUnixTimestamp64Milli(maxIf(last, live AND topic = $2 AND group != $4)),
       toUnixTimestamp64Milli(now64(3))
FROM (
    SELECT toString(topic) AS topic, partitions, toString(group) AS group, writer, min(first_seen) AS first, max(last_seen) AS last,
           argMax(gone, last_seen) = 0 AND dateDiff('millisecond', last, now64(3)) < $5 AS live
    FROM usage_writers
    GROUP BY topic, partitions, group, writer
)
