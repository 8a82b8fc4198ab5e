-- The events of the inbox with some identities ($1 sources, $2 ids), as far as they are at their end.
SELECT i.source, i.event_id, i.type, i.company_id, i.result, coalesce(i.published_at, 'infinity'), coalesce(c.status = 'purged', false), i.fault IS NOT NULL
FROM unnest($1::text[], $2::text[]) AS a (source, event_id)
JOIN public.inbox AS i ON i.source = a.source AND i.event_id = a.event_id
LEFT JOIN public.companies AS c ON c.company_id = i.company_id
WHERE i.state IN ('done', 'rejected')
