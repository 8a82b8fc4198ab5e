-- Takes a request to take usage back ($1 source, $2 id) out of those that are looked up: $3 says why it can't be read or written. The same
-- request, delivered again, is tried again.
WITH gone AS (
    DELETE FROM public.void_requests WHERE source = $1 AND event_id = $2
)
UPDATE public.inbox
SET fault = $3
WHERE source = $1 AND event_id = $2 AND state = 'held' AND fault IS NULL
