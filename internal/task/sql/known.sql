SELECT identity FROM public.task_identities WHERE task_id = $1 AND identity = ANY ($2)
