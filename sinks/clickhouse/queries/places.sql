-- Which events the table holds of a topic ($1), partition ($2) and range of offsets ($3 to $4, exclusive).
SELECT event_id, toString(event_source), _offset
FROM usage_tracking
WHERE _topic = $1 AND _partition = $2 AND _offset >= $3 AND _offset < $4
ORDER BY _offset
