-- The event whose result is a configuration ($3) of a company ($1) in a version ($2), among the newest of its audit log; none where it is
-- further back, or the configuration was written by hand.
SELECT i.source, i.event_id, i.result AS text
FROM (SELECT event_source, event_id FROM public.audit_log WHERE company_id = $1 ORDER BY seq DESC LIMIT 500) AS a
JOIN public.inbox AS i ON i.source = a.event_source AND i.event_id = a.event_id
WHERE EXISTS (
    SELECT FROM jsonb_array_elements(CASE jsonb_typeof(i.result -> 'events') WHEN 'array' THEN i.result -> 'events' END) AS o
    WHERE o ->> 'topic' = 'company.config' AND o -> 'data' -> 'version' = to_jsonb($2::bigint) AND o -> 'data' -> 'config' = $3::jsonb)
LIMIT 1
