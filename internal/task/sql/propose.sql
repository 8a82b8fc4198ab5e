-- The decision about a chunk, before anything of it is published.
UPDATE public.tasks
SET pending = $3, lease_until = clock_timestamp() + $4::interval, updated_at = clock_timestamp()
WHERE task_id = $1 AND fence = $2 AND state IN ('running', 'stopping')
