-- The results ($2: at most how many) of events that were done longer than $1 ago and are not known to be published. Before $3 (null: ever)
-- there are none. The time of the statement, unlike that of the clock, is one that an index can be searched by.
SELECT source, event_id, result AS text
FROM public.inbox
WHERE published_at IS NULL AND state IN ('done', 'rejected') AND applied_at < statement_timestamp() - $1::interval
    AND applied_at >= coalesce($3::timestamptz, '-infinity') AND result IS NOT NULL AND fault IS NULL
ORDER BY applied_at
LIMIT $2
