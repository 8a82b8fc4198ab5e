-- Up to $3 events of the inbox that are at their end and whose results were published, behind an identity ($1 source, $2 id), since a
-- time ($4, null: since ever).
SELECT i.source, i.event_id, i.type, i.company_id, i.result, i.published_at, coalesce(c.status = 'purged', false), i.fault IS NOT NULL
FROM public.inbox AS i
LEFT JOIN public.companies AS c ON c.company_id = i.company_id
WHERE (i.source, i.event_id) > ($1, $2) AND i.state IN ('done', 'rejected') AND i.published_at >= coalesce($4, '-infinity'::timestamptz)
ORDER BY i.source, i.event_id
LIMIT $3
