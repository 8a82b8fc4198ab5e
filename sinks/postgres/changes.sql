-- The changes that a reader has not seen who asked last when $1 was the oldest transaction under way, and the
-- oldest one now. It is one statement, so that both are of one snapshot: what is under way in it, and commits later, is
-- not older than that transaction. The first row is always there; its change may be null.
WITH read AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS oldest)
SELECT read.oldest, c.company_id, coalesce(c.user_id, ''), max(c.version)
FROM read
LEFT JOIN public.changes AS c ON c.xid >= $1
GROUP BY read.oldest, c.company_id, c.user_id
