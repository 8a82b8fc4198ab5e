-- Every job of the schedule: its last slot and what came of it, the last one that was done, since when the oldest work could be done that is not at
-- its end, and how many such slots there are.
SELECT j.job, j.every, j.first_seen, j.planned_to, j.missed, j.skipped, public.job_clock() AS now,
    last.slot AS last_slot, coalesce(last.state, '') AS state, last.started_at, last.finished_at, coalesce(last.attempts, 0) AS attempts,
    coalesce(last.error, '') AS error, last.result, done.slot AS done_slot, done.finished_at AS done_at, open.first AS open_since, open.slots AS open
FROM public.jobs AS j
LEFT JOIN LATERAL (SELECT * FROM public.job_slots AS s WHERE s.job = j.job ORDER BY s.slot DESC LIMIT 1) AS last ON true
LEFT JOIN LATERAL (
    SELECT s.slot, s.finished_at FROM public.job_slots AS s WHERE s.job = j.job AND s.state = 'done' ORDER BY s.slot DESC LIMIT 1
) AS done ON true
LEFT JOIN LATERAL (
    SELECT min(greatest(s.slot, s.not_before)) AS first, count(*) AS slots FROM public.job_slots AS s WHERE s.job = j.job AND s.state IN ('due', 'queued', 'running')
) AS open ON true
ORDER BY j.job
