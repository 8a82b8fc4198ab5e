-- A task that no living process works on is stopped at once; the owner of another one sees that it is asked to stop.
UPDATE public.tasks
SET state = CASE WHEN lease_until >= clock_timestamp() THEN 'stopping' ELSE 'stopped' END,
    fence = CASE WHEN lease_until >= clock_timestamp() THEN fence ELSE fence + 1 END,
    finished_at = CASE WHEN lease_until >= clock_timestamp() THEN NULL ELSE clock_timestamp() END,
    updated_at = clock_timestamp()
WHERE task_id = $1 AND state IN ('running', 'stopping')
RETURNING task_id, kind, topic, spec, state, position, counts, pending, lease_until, owner, fence, message, created_by, created_at, updated_at, finished_at
