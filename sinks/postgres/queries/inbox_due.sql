-- What something that was due ($1 source, $2 id, $3 type, $4 company) has led to: $5 its state, $7 what is to be published. That it is done
-- is in the subscription and not here: the same time may fall due twice.
INSERT INTO public.inbox AS i (source, event_id, type, company_id, state, fingerprint, result, applied_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp())
ON CONFLICT (source, event_id) DO UPDATE
    SET (state, fingerprint, result, event, applied_at, published_at, wait_until, fault)
        = (EXCLUDED.state, EXCLUDED.fingerprint, EXCLUDED.result, NULL, EXCLUDED.applied_at, NULL, NULL, NULL)
RETURNING i.result
