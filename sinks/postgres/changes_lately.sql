-- changes.sql for a reader who comes for the first time: the changes of the last while ($1).
WITH read AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS oldest)
SELECT read.oldest, c.company_id, coalesce(c.user_id, ''), max(c.version)
FROM read
LEFT JOIN public.changes AS c ON c.changed_at >= clock_timestamp() - $1::interval
GROUP BY read.oldest, c.company_id, c.user_id
