-- A template: all rows of some identities, each with whether its insert is pending.
SELECT
    toString(event_source) AS source,
    event_id,
    company_id,
    user_id,
    toUnixTimestamp64Milli(timestamp) AS at,
    {{template "signed.sql"}} AS content,
    toString(_topic) AS topic,
    toUInt16(_partition) AS partition,
    toInt64(_offset) AS offset,
    toUnixTimestamp64Milli(_insert_by) AS insert_by,
    toString(_part) AS part,
    toUInt64(_part_offset) AS row,
    toUInt8({{.Pending}}) AS pending
FROM usage_tracking
WHERE {{template "identity.sql"}} IN ({{.Identities}})
