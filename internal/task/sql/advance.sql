-- A chunk is accounted for: position and counts move together, and nothing is pending.
UPDATE public.tasks
SET position = $3, counts = $4, pending = NULL, message = '', lease_until = clock_timestamp() + $5::interval, updated_at = clock_timestamp()
WHERE task_id = $1 AND fence = $2 AND state IN ('running', 'stopping')
RETURNING state
