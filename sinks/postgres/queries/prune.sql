-- Removes at most $3 changes that are older than a while ($1) and that were made by transactions before $2: those were
-- finished some time ago, so that every reader has seen them. Age alone does not say that, for it counts from the change
-- and not from the commit. What a transaction is said to have made that this server has not begun yet came with a backup of
-- another one; its id means nothing here.
DELETE FROM public.changes
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM public.changes
    WHERE changed_at < statement_timestamp() - $1::interval AND xid < $2
        OR xid >= pg_snapshot_xmax(pg_current_snapshot())
    LIMIT $3))
