-- Deletes the rows of a topic ($1), partition ($2) and range of offsets ($3 to $4, exclusive) that carry one of some deadlines ($5, in
-- milliseconds).
ALTER TABLE usage_tracking
DELETE WHERE _topic = $1 AND _partition = $2 AND _offset >= $3 AND _offset < $4 AND toUnixTimestamp64Milli(_insert_by) IN $5
SETTINGS mutations_sync = 2
