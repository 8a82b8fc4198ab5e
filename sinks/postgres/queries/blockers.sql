-- The sessions that a server process ($1) waits for, in words. Of another user's session Postgres may tell no more than the name.
SELECT coalesce(string_agg(format('%s (pid %s%s%s)', coalesce(a.usename::text, 'unknown'), b.pid,
    CASE WHEN a.application_name <> '' THEN ', ' || a.application_name END,
    ', transaction open since ' || to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')), ', ' ORDER BY b.pid), '')
FROM (SELECT DISTINCT unnest(pg_catalog.pg_blocking_pids($1::bigint::integer)) AS pid) AS b
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid
