-- The identities of the rows of a topic ($1) and partition ($2) at some offsets ($3).
SELECT _offset, toString(event_source), event_id
FROM usage_tracking
WHERE _topic = $1 AND _partition = $2 AND _offset IN $3
