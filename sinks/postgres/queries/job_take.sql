-- Gives a process ($3) the first slot of a job ($1) that can be taken, for as long as a lease ($2), under the job's lock: one that is queued and whose
-- time to be tried has come, or whose process has given no sign for as long as its lease. A time further ahead than any wait ($4) is
-- left over from a clock that was set back. No row: another process is at work, or nothing is to be done.
UPDATE public.job_slots AS s
SET state = 'running', attempts = s.attempts + 1, started_at = public.job_clock(), lease_until = public.job_clock() + $2::interval,
    next_at = NULL, owner = $3
WHERE s.job = $1
    AND s.slot = (
        SELECT min(o.slot) FROM public.job_slots AS o
        WHERE o.job = $1 AND (o.state = 'running'
            OR o.state = 'queued' AND (o.next_at <= public.job_clock() OR o.next_at > public.job_clock() + $4::interval))
    )
    AND NOT EXISTS (SELECT FROM public.job_slots AS r WHERE r.job = $1 AND r.state = 'running' AND r.lease_until > public.job_clock())
RETURNING s.slot, s.attempts
