-- A piece of what a task has published, of which nothing is asked any more when everything is decided: one statement that deletes the
-- identities of millions of events would not end in time.
DELETE FROM public.task_identities
WHERE ctid = ANY (ARRAY(
    SELECT i.ctid FROM public.task_identities AS i
    WHERE i.task_id = $1 AND EXISTS (SELECT FROM public.tasks WHERE task_id = $1 AND fence = $2 AND state IN ('running', 'stopping'))
    LIMIT $3
))
