-- What a process looks at again and again, of some jobs ($1): how far each is planned, whether a slot of it can be taken (one is at work at a
-- time), whether events of it are to be published, and the clock. A time to go on at that lies further ahead than any wait ($2) is
-- left over from a clock that was set back.
SELECT j.job, j.planned_to, public.job_clock() AS now,
    NOT EXISTS (SELECT FROM public.job_slots AS s WHERE s.job = j.job AND s.state = 'running' AND s.lease_until > public.job_clock())
        AND EXISTS (
            SELECT FROM public.job_slots AS s
            WHERE s.job = j.job AND (s.state = 'running'
                OR s.state = 'queued' AND (s.next_at <= public.job_clock() OR s.next_at > public.job_clock() + $2::interval))
        ) AS ready,
    EXISTS (
        SELECT FROM public.job_slots AS s
        WHERE s.job = j.job AND s.state = 'due' AND (s.next_at <= public.job_clock() OR s.next_at > public.job_clock() + $2::interval)
    ) OR EXISTS (
        SELECT FROM public.job_slots AS s
        WHERE s.job = j.job AND s.state = 'done' AND s.published_at IS NULL AND s.attempts > 0
            AND (s.next_at <= public.job_clock() OR s.next_at > public.job_clock() + $2::interval)
    ) AS unpublished
FROM public.jobs AS j
WHERE j.job = ANY ($1)
ORDER BY j.job
