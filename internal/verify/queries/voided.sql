-- What the voids of some users' moments take back. ?: the oldest and the newest of the moments and all of them, in milliseconds; then companies,
-- users and moments by place in the arrays.
SELECT toString(company_id) AS company, toString(user_id) AS user, toUnixTimestamp64Milli(timestamp) AS at,
    toString(voids_source) AS usage_source, voids_id AS usage_id
FROM usage_tracking
WHERE sign != 1 AND timestamp >= fromUnixTimestamp64Milli(toInt64(?), 'UTC') AND timestamp <= fromUnixTimestamp64Milli(toInt64(?), 'UTC')
    AND timestamp IN (SELECT fromUnixTimestamp64Milli(toInt64(arrayJoin(?)), 'UTC'))
    AND (company_id, user_id, timestamp) IN (
        SELECT key.1, key.2, fromUnixTimestamp64Milli(toInt64(key.3), 'UTC') FROM (SELECT arrayJoin(arrayZip(?, ?, ?)) AS key))
