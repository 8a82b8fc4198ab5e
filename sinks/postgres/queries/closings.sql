-- Companies (of partition $1; at most $4) that are closed and whose subscription is not, although that was published longer than $3 ago, and not
-- again to topic $2 since.
SELECT s.company_id, s.closing_at
FROM public.subscriptions AS s
WHERE s.closing_at IS NOT NULL AND s.closed_at IS NULL AND (s.event_partition = $1 OR s.event_partition IS NULL AND $1 = 0)
    AND s.updated_at < statement_timestamp() - $3::interval
    AND NOT EXISTS (SELECT FROM public.inbox AS i WHERE i.company_id = s.company_id AND i.state = 'waiting')
    AND NOT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = s.company_id)
    AND NOT EXISTS (SELECT FROM public.due_events AS d WHERE d.company_id = s.company_id AND d.topic = $2 AND d.due_at = s.closing_at
        AND d.published_at > statement_timestamp() - $3::interval)
LIMIT $4
