-- Companies ($1: at most how many) for which events wait that could be applied. Those that can't go on are left to block_retry.sql.
SELECT DISTINCT i.company_id
FROM public.inbox AS i
WHERE i.state = 'waiting'
    AND (i.type = 'company.registered.v1' OR EXISTS (SELECT FROM public.companies AS c WHERE c.company_id = i.company_id))
    AND NOT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = i.company_id)
LIMIT $1
