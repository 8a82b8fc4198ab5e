-- The companies ($1: at most how many) that can't go on, those first that have stood still for longest, and how many events wait.
SELECT b.company_id, b.reason, b.detail, coalesce(b.blocked_by, '') AS blocked_by, b.since, b.tries,
    (SELECT count(*) FROM public.inbox AS i WHERE i.company_id = b.company_id AND i.state = 'waiting') AS waiting
FROM public.company_blocks AS b
ORDER BY b.since
LIMIT $1
