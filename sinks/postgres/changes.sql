-- The changes that a reader has not seen whose last snapshot was $2, of which the oldest transaction under way was $1;
-- without $2, those since $1, of which he may have seen some. The snapshot is given back: it is that of this one statement, so
-- what is not in it is not in the answer either. The first row is always there; its change may be null.
WITH read AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot)
SELECT read.snapshot::text, c.company_id, coalesce(c.user_id, ''), max(c.version)
FROM read
LEFT JOIN public.changes AS c
    ON c.xid >= $1 AND c.xid < pg_snapshot_xmax(read.snapshot) -- not what a restored backup says of another server's future
    AND NOT coalesce(pg_visible_in_snapshot(c.xid, nullif($2::text, '')::pg_snapshot), false)
GROUP BY read.snapshot::text, c.company_id, c.user_id
