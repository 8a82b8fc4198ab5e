SELECT task_id FROM public.tasks WHERE topic = $1 AND state IN ('running', 'stopping')
