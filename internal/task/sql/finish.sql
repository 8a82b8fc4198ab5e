-- A further owner finds the same outcome: the state is written once.
UPDATE public.tasks
SET state = $3, message = $4, lease_until = NULL, updated_at = clock_timestamp(), finished_at = clock_timestamp()
WHERE task_id = $1 AND fence = $2 AND state IN ('running', 'stopping', $3)
RETURNING task_id, kind, topic, spec, state, position, counts, pending, lease_until, owner, fence, message, created_by, created_at, updated_at, finished_at
