UPDATE public.tasks
SET lease_until = clock_timestamp() + $3::interval, message = $4
WHERE task_id = $1 AND fence = $2 AND state IN ('running', 'stopping')
RETURNING state
