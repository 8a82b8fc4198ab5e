-- Lets an event ($1 source, $2 id, $3 type, $4 company, $6 the whole event) wait for its company, for as long as $7 if that is not
-- registered. A row that is held with a fault is replaced: this delivery may be readable.
INSERT INTO public.inbox AS i (source, event_id, type, company_id, state, fingerprint, event, wait_until)
VALUES ($1, $2, $3, $4, 'waiting', $5, $6, clock_timestamp() + $7::interval)
ON CONFLICT (source, event_id) DO UPDATE
    SET state = 'waiting', fingerprint = EXCLUDED.fingerprint, event = EXCLUDED.event, wait_until = EXCLUDED.wait_until, applied_at = NULL, fault = NULL
    WHERE i.state = 'held' AND i.fault IS NOT NULL
RETURNING 1
