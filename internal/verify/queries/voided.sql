-- What the voids of some users' moments take back: ? companies, users and timestamps (milliseconds) by place in the arrays.
SELECT toString(company_id) AS company, toString(user_id) AS user, toUnixTimestamp64Milli(timestamp) AS at,
    toString(voids_source) AS usage_source, voids_id AS usage_id
FROM usage_tracking
WHERE sign != 1 AND (company_id, user_id, toUnixTimestamp64Milli(timestamp)) IN (
    SELECT key.1, key.2, key.3 FROM (SELECT arrayJoin(arrayZip(?, ?, ?)) AS key))
