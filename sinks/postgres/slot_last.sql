-- The last slot of a job ($1) that was done. No row: none was.
SELECT slot, started_at, finished_at, coalesce(result, '{}')
FROM public.job_slots WHERE job = $1 AND state = 'done' ORDER BY finished_at DESC LIMIT 1
