UPDATE public.tasks
SET state = 'running', lease_until = NULL, message = '', finished_at = NULL, updated_at = clock_timestamp()
WHERE task_id = $1 AND state IN ('stopped', 'failed')
RETURNING task_id, kind, topic, spec, state, position, counts, pending, lease_until, owner, fence, message, created_by, created_at, updated_at, finished_at
