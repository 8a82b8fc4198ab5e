-- Ends the open slots of a job ($1) before a time ($2): the next one has come, or it is too late for them. What is at work goes on, and so does
-- what was asked for by hand. Returns the state of each.
UPDATE public.job_slots
SET state = CASE WHEN attempts = 0 THEN 'skipped' ELSE 'failed' END, finished_at = greatest(public.job_clock(), started_at)
WHERE job = $1 AND slot < $2 AND asked_by = ''
    AND (state IN ('due', 'queued') OR state = 'running' AND lease_until <= public.job_clock())
RETURNING state
