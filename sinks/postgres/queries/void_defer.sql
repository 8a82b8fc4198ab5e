-- Puts off requests to take usage back ($1 sources, $2 ids): $3 says what they wait for. Each is looked up again after half a second, and
-- ever later the more look-ups were in vain, up to ten seconds. In the order of their keys, so that two processes can't block each other.
WITH these AS (
    SELECT v.source, v.event_id
    FROM public.void_requests AS v
    JOIN unnest($1::text[], $2::text[]) AS n (source, event_id) ON n.source = v.source AND n.event_id = v.event_id
    ORDER BY v.source, v.event_id
    FOR UPDATE OF v
)
UPDATE public.void_requests AS v
SET tries = v.tries + 1, why = $3,
    next_try = clock_timestamp() + least(interval '500 milliseconds' * 2 ^ least(v.tries, 10), interval '10 seconds')
FROM these AS t
WHERE v.source = t.source AND v.event_id = t.event_id
