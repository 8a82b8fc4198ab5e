-- Undoes for a job ($1) what a clock that was far ahead has done. Slots that have not come and had no effect are removed: they are planned when they come. Those that
-- it has ended are open again.
WITH removed AS (
    DELETE FROM public.job_slots WHERE job = $1 AND slot > public.job_clock() AND state IN ('due', 'queued', 'failed', 'skipped')
)
UPDATE public.job_slots SET state = 'due', finished_at = NULL, next_at = public.job_clock(), not_before = public.job_clock()
WHERE job = $1 AND slot <= public.job_clock() AND state IN ('failed', 'skipped') AND finished_at > public.job_clock()
