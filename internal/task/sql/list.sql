-- Those that are active, and the newest of the others.
SELECT task_id, kind, topic, spec, state, position, counts, pending, lease_until, owner, fence, message, created_by, created_at, updated_at, finished_at
FROM public.tasks
ORDER BY state IN ('running', 'stopping') DESC, created_at DESC
LIMIT $1
