-- The events stored from a range of offsets, by the hash of their identity (events.IdentityHash). The last row ends the answer.
SELECT offset, identity FROM (
    SELECT toInt64(_offset) AS offset, xxHash64(concat(event_source, '\n', event_id)) AS identity
    FROM usage_tracking
    WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?
        AND timestamp >= fromUnixTimestamp64Milli(toInt64(?), 'UTC') AND timestamp <= fromUnixTimestamp64Milli(toInt64(?), 'UTC')
    UNION ALL SELECT toInt64(-1), toUInt64(0)
) ORDER BY offset = -1, offset
