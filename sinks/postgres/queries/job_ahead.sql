-- Removes the slots of a job ($1) that have not come and had no effect: a clock that was far ahead has planned them. They are planned when they come.
DELETE FROM public.job_slots WHERE job = $1 AND slot > public.job_clock() AND state IN ('due', 'queued', 'failed', 'skipped')
