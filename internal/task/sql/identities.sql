INSERT INTO public.task_identities (task_id, identity) SELECT $1, i FROM unnest($2::bytea[]) AS i
ON CONFLICT DO NOTHING
