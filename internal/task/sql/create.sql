-- A task without an owner: any process may claim it. The index tasks_active refuses a second one on a topic.
INSERT INTO public.tasks (task_id, kind, topic, spec, position, created_by)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING task_id, kind, topic, spec, state, position, counts, pending, lease_until, owner, fence, message, created_by, created_at, updated_at, finished_at
