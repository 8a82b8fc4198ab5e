-- Claims one task whose lease has run out, or was given back: the named one, or the oldest of some kinds.
UPDATE public.tasks AS t
SET fence = t.fence + 1, owner = $1, lease_until = clock_timestamp() + $2::interval, updated_at = clock_timestamp()
WHERE t.task_id = (
    SELECT c.task_id FROM public.tasks AS c
    WHERE c.state IN ('running', 'stopping') AND (c.lease_until IS NULL OR c.lease_until < clock_timestamp())
        AND ($3 = '' OR c.task_id = $3) AND ($4::text[] IS NULL OR c.kind = ANY ($4))
    ORDER BY c.created_at LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING t.task_id, t.kind, t.topic, t.spec, t.state, t.position, t.counts, t.pending, t.lease_until, t.owner, t.fence, t.message, t.created_by, t.created_at, t.updated_at, t.finished_at
