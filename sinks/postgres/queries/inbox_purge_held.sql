-- Ends what is held of a company ($1) that is purged: it asks for less than a purge, or can't be applied. What waits for its usage to be
-- looked up is refused then.
UPDATE public.inbox
SET state = 'done', event = NULL, fault = NULL, published_at = clock_timestamp()
WHERE company_id = $1 AND state = 'held' AND (fault IS NOT NULL OR type <> 'company.usage_void_requested.v1')
