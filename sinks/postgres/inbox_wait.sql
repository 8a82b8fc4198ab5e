-- Lets an event ($1 source, $2 id, $3 type, $4 company, $6 the whole event) wait for its company, for as long as $7.
INSERT INTO public.inbox (source, event_id, type, company_id, state, fingerprint, event, wait_until)
VALUES ($1, $2, $3, $4, 'waiting', $5, $6, clock_timestamp() + $7::interval)
ON CONFLICT (source, event_id) DO NOTHING
RETURNING 1
