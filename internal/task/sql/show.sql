SELECT task_id, kind, topic, spec, state, position, counts, pending, lease_until, owner, fence, message, created_by, created_at, updated_at, finished_at
FROM public.tasks WHERE task_id = $1
