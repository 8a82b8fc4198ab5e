-- Moves on the lease ($4) of an attempt ($3) at a slot ($2) of a job ($1). No row: the slot is another process's by now.
UPDATE public.job_slots SET lease_until = public.job_clock() + $4::interval
WHERE job = $1 AND slot = $2 AND attempts = $3 AND state = 'running'
