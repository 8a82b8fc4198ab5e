-- Notes that the results of events ($1 sources, $2 ids) are published. What a purge has found on its way is forgotten here, but for the
-- purge's own result.
UPDATE public.inbox AS i
SET published_at = clock_timestamp(), result = CASE
    WHEN i.state = 'done' AND i.type <> 'company.closed.v1'
        AND EXISTS (SELECT FROM public.companies AS c WHERE c.company_id = i.company_id AND c.status = 'purged') THEN NULL
    ELSE i.result END
FROM unnest($1::text[], $2::text[]) AS p (source, event_id)
WHERE i.source = p.source AND i.event_id = p.event_id AND i.published_at IS NULL
