-- Takes the slot of a job ($1) away from a process that has given no sign for as long as its lease: a failure of the slot, since its work may be what
-- ends processes. After the first one it is tried at once, and after more of them later and later. One that was asked for by hand ends after a
-- number of failures ($2).
UPDATE public.job_slots
SET failures = failures + 1, error = 'the process ' || owner || ' gave no sign any more',
    state = CASE WHEN asked_by <> '' AND failures + 1 >= $2 THEN 'failed' ELSE 'queued' END,
    finished_at = CASE WHEN asked_by <> '' AND failures + 1 >= $2 THEN greatest(public.job_clock(), started_at) END,
    next_at = CASE
        WHEN asked_by <> '' AND failures + 1 >= $2 THEN NULL
        WHEN failures = 0 THEN public.job_clock()
        ELSE lease_until + least(interval '1 minute' * 2 ^ least(failures, 10), interval '1 hour')
    END
WHERE job = $1 AND state = 'running' AND lease_until <= public.job_clock()
