-- The entries of a topic ($1) that are not done, the oldest first, and whether each may be judged by now.
SELECT toUInt16(partition), toInt64(from_offset), toInt64(to_offset), toString(reason), toUnixTimestamp64Milli(not_before), not_before <= now64(3)
FROM usage_rechecks
WHERE topic = $1
GROUP BY topic, partition, from_offset, to_offset, reason, not_before
HAVING max(done) = 0
ORDER BY not_before, partition, from_offset
LIMIT 1000
