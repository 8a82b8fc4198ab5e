-- changes.sql for a reader who comes for the first time: the changes of the last while ($1).
WITH read AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot)
SELECT read.snapshot::text, c.company_id, coalesce(c.user_id, ''), max(c.version)
FROM read
LEFT JOIN public.changes AS c ON c.changed_at >= clock_timestamp() - $1::interval
GROUP BY read.snapshot::text, c.company_id, c.user_id
