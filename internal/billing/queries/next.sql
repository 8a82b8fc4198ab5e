-- By partition of a topic ($2), the offset behind the last usage row of a company ($1).
SELECT toInt64(_partition) AS partition, toInt64(max(_offset)) + 1 AS next FROM usage_tracking WHERE company_id = $1 AND _topic = $2 GROUP BY partition
