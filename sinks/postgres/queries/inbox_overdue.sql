-- The events ($2: at most how many) whose time to wait for their company was over longer than $1 ago.
SELECT i.source, i.event_id, i.event AS text
FROM public.inbox AS i
WHERE i.state = 'waiting' AND i.wait_until <= statement_timestamp() - $1::interval AND i.type <> 'company.registered.v1'
    AND NOT EXISTS (SELECT FROM public.companies AS c WHERE c.company_id = i.company_id)
    AND NOT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = i.company_id)
ORDER BY i.seq
LIMIT $2
