-- Notes that events of what is due are published to a topic ($4): companies $1, ids $2, due times $3. Of a company that is gone nothing
-- is noted. In the order of the companies, so that two processes can't block each other.
INSERT INTO public.due_events AS d (company_id, topic, event_id, due_at, published_at)
SELECT c.company_id, $4, n.event_id, n.due_at, clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS n (company_id, event_id, due_at)
JOIN public.companies AS c ON c.company_id = n.company_id
ORDER BY 1
ON CONFLICT (company_id, topic) DO UPDATE
    SET (event_id, due_at, published_at) = (EXCLUDED.event_id, EXCLUDED.due_at, EXCLUDED.published_at)
