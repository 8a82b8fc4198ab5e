-- What is due to companies of partition $1 by Postgres' clock and by $2, and was not published to topic $3 within $4; of at most $5.
SELECT s.company_id, s.status, s.pending_at, s.grace_until, s.renewal_until, s.next_period_start
FROM public.subscriptions AS s
JOIN public.companies AS c ON c.company_id = s.company_id AND c.status = 'active' -- else the end of the subscription is on its way
WHERE s.due_at <= least($2::timestamptz, statement_timestamp()) AND s.closed_at IS NULL AND (s.event_partition = $1 OR s.event_partition IS NULL AND $1 = 0)
    AND NOT EXISTS (SELECT FROM public.inbox AS i WHERE i.company_id = s.company_id AND i.state = 'waiting')
    AND NOT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = s.company_id)
    AND NOT EXISTS (SELECT FROM public.due_events AS d WHERE d.company_id = s.company_id AND d.topic = $3 AND d.due_at = s.due_at
        AND d.published_at > statement_timestamp() - $4::interval)
ORDER BY s.due_at
LIMIT $5
