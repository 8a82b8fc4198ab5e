-- Takes an event ($1 source, $2 id) that waits out of its company's way: $3 says why it can't be applied.
UPDATE public.inbox
SET state = 'held', fault = $3, applied_at = clock_timestamp()
WHERE source = $1 AND event_id = $2 AND state = 'waiting'
