-- A template: the voids that have no usage, a row of sign 1 with the identity they name and the data they repeat. Only those whose insert
-- was over at a time (Quiet, milliseconds), and not of the last days before rows expire: a usage and its void may stand in two
-- parts, which do not go in one moment. Recent is a condition on the voids.
SELECT
    toString(_topic) AS topic,
    toUInt16(_partition) AS partition,
    toInt64(_offset) AS offset,
    toString(event_source) AS source,
    event_id,
    toString(voids_source) AS usage_source,
    voids_id AS usage_id
FROM usage_tracking
WHERE sign != 1 AND timestamp >= toDateTime(toDate(now('UTC') - INTERVAL 2 YEAR) + 2, 'UTC')
    AND toUnixTimestamp64Milli(_insert_by) < {{.Quiet}} AND {{.Recent}}
    AND (company_id, user_id, timestamp, voids_id, toString(voids_source), {{template "content.sql"}}) NOT IN (
        SELECT company_id, user_id, timestamp, event_id, toString(event_source), {{template "content.sql"}}
        FROM usage_tracking
        WHERE sign = 1 AND (company_id, user_id, timestamp, event_id) IN (
            SELECT company_id, user_id, timestamp, voids_id FROM usage_tracking WHERE sign != 1))
