-- What is decided by when slots of a job ($1) are planned, under its lock: how far it is planned, the clock, and whether a slot is at work.
SELECT j.planned_to, public.job_clock() AS now,
    EXISTS (SELECT FROM public.job_slots AS s WHERE s.job = j.job AND s.state = 'running' AND s.lease_until > public.job_clock()) AS running
FROM public.jobs AS j
WHERE j.job = $1
