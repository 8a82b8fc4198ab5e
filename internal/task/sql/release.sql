UPDATE public.tasks SET lease_until = NULL WHERE task_id = $1 AND fence = $2
