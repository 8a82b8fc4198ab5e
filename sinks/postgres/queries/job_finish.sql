-- Stores what came ($4) of an attempt ($3) at a slot ($2) of a job ($1), and has its event published. No row: the slot is another process's by now.
UPDATE public.job_slots
SET state = 'done', result = $4, error = '', finished_at = greatest(public.job_clock(), started_at), next_at = public.job_clock()
WHERE job = $1 AND slot = $2 AND attempts = $3 AND state = 'running'
