-- Companies ($1: at most how many) for which events wait that could be applied. Those that can't go on are left to block_retry.sql.
-- It goes from company to company, and not from event to event: of a company that can't go on very many may wait.
WITH RECURSIVE waiting AS (
    (SELECT i.company_id FROM public.inbox AS i WHERE i.state = 'waiting' ORDER BY i.company_id LIMIT 1)
    UNION ALL
    SELECT (SELECT i.company_id FROM public.inbox AS i WHERE i.state = 'waiting' AND i.company_id > w.company_id ORDER BY i.company_id LIMIT 1)
    FROM waiting AS w WHERE w.company_id IS NOT NULL
)
SELECT w.company_id
FROM waiting AS w
WHERE w.company_id IS NOT NULL
    AND (EXISTS (SELECT FROM public.companies AS c WHERE c.company_id = w.company_id)
        OR EXISTS (SELECT FROM public.inbox AS i WHERE i.company_id = w.company_id AND i.state = 'waiting' AND i.type = 'company.registered.v1'))
    AND NOT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = w.company_id)
LIMIT $1
