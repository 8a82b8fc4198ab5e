-- Which of some events ($1 sources, $2 ids) need nothing more: their places in the lists, from 1, and the fingerprints they came with.
SELECT a.place, i.fingerprint
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS a (source, event_id, place)
JOIN public.inbox AS i ON i.source = a.source AND i.event_id = a.event_id
WHERE CASE i.state
    WHEN 'held' THEN i.fault IS NULL -- else the event that comes again may mend it
    WHEN 'waiting' THEN EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = i.company_id)
    ELSE i.published_at IS NOT NULL OR i.fault IS NOT NULL END
