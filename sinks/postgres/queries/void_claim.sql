-- Requests to take usage back ($1: at most how many) whose usage is to be looked up now. For $2 no other process gets them. Of several for
-- the same usage the one that came first is decided first, so that the order in the log says which of them is refused.
WITH due AS (
    SELECT r.source, r.event_id
    FROM public.void_requests AS r
    WHERE r.next_try <= statement_timestamp() AND NOT EXISTS (
        SELECT FROM public.void_requests AS e WHERE e.company_id = r.company_id AND e.void_id = r.void_id AND e.seq < r.seq)
    ORDER BY r.next_try
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE public.void_requests AS v
SET next_try = clock_timestamp() + $2::interval
FROM due, public.inbox AS i
WHERE v.source = due.source AND v.event_id = due.event_id AND i.source = v.source AND i.event_id = v.event_id
RETURNING v.source, v.event_id, i.event AS text, v.effect_at
