-- Announces a writer ($4) of a topic ($1) with $2 partitions and its consumer group ($3), first announced at $5 (in milliseconds; 0: now).
-- $6: it stops writing.
INSERT INTO usage_writers (topic, partitions, group, writer, first_seen, last_seen, gone)
SELECT $1, $2, $3, $4, if(toInt64($5) = 0, now64(3), fromUnixTimestamp64Milli(toInt64($5), 'UTC')), now64(3), $6
