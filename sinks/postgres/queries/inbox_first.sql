-- The event that has waited longest for a company ($1). To one that is not registered only a registration can be applied.
SELECT i.source, i.event_id, i.event AS text
FROM public.inbox AS i
WHERE i.company_id = $1 AND i.state = 'waiting'
    AND (i.type = 'company.registered.v1' OR EXISTS (SELECT FROM public.companies AS c WHERE c.company_id = i.company_id))
ORDER BY i.seq
LIMIT 1
