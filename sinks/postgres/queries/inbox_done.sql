-- What an event ($1 source, $2 id, $3 type, $4 company) has led to: $5 its state, $7 what is to be published. The row may be there
-- already, waiting, held with a fault or until its usage is looked up; if it is there in another state, another process has been faster, and no row is returned. What
-- comes back is the result as it will be read again, so that every process that publishes it publishes the same bytes.
INSERT INTO public.inbox AS i (source, event_id, type, company_id, state, fingerprint, result, event, applied_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp())
ON CONFLICT (source, event_id) DO UPDATE
    SET state = EXCLUDED.state, result = EXCLUDED.result, event = EXCLUDED.event, applied_at = EXCLUDED.applied_at, wait_until = NULL, fault = NULL
    WHERE (i.state = 'waiting' OR i.state = 'held' AND (i.fault IS NOT NULL OR i.type = 'company.usage_void_requested.v1'))
        AND i.fingerprint = EXCLUDED.fingerprint AND i.company_id = EXCLUDED.company_id
RETURNING i.result
