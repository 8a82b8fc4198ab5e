-- Notes that the events of slots ($2) of jobs ($1) that are due are in the log. They are published again after a while ($3) without effect.
UPDATE public.job_slots AS s SET next_at = public.job_clock() + $3::interval
FROM unnest($1::text[], $2::timestamptz[]) AS n (job, slot)
WHERE s.job = n.job AND s.slot = n.slot AND s.state = 'due'
