-- Notes that the events of what came of slots ($2) of jobs ($1) are in the log.
UPDATE public.job_slots AS s SET published_at = public.job_clock(), next_at = NULL
FROM unnest($1::text[], $2::timestamptz[]) AS n (job, slot)
WHERE s.job = n.job AND s.slot = n.slot AND s.state = 'done' AND s.published_at IS NULL
