-- One slot ($2) of a job ($1).
SELECT slot, state, started_at, finished_at, attempts, owner, error, asked_by, result, published_at
FROM public.job_slots
WHERE job = $1 AND slot = $2
