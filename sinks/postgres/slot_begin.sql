-- Takes a slot ($2) of a job ($1) for a while ($3), unless it was taken before or another slot of the job is being worked on. Returns a row if
-- it was taken.
INSERT INTO public.job_slots (job, slot, state, lease_until)
SELECT $1, $2, 'running', clock_timestamp() + $3::interval
WHERE NOT EXISTS (SELECT FROM public.job_slots AS s WHERE s.job = $1 AND s.state = 'running' AND s.lease_until > clock_timestamp())
ON CONFLICT DO NOTHING
RETURNING 1
