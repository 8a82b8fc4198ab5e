-- Has slots ($2) of jobs ($1) done whose events were read from the log, of those that are still due. Returns them.
UPDATE public.job_slots AS s SET state = 'queued', next_at = public.job_clock()
FROM unnest($1::text[], $2::timestamptz[]) AS n (job, slot)
WHERE s.job = n.job AND s.slot = n.slot AND s.state = 'due'
RETURNING s.job, s.slot
