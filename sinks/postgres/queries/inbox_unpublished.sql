-- The results ($2: at most how many) of events that were done longer than $1 ago and are not known to be published.
SELECT source, event_id, result AS text
FROM public.inbox
WHERE published_at IS NULL AND state IN ('done', 'rejected') AND applied_at < clock_timestamp() - $1::interval AND result IS NOT NULL
    AND fault IS NULL
ORDER BY applied_at
LIMIT $2
