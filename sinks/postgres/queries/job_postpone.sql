-- Puts an attempt ($3) at a slot ($2) of a job ($1) off: its work can't be done before a time ($5), for a reason ($4). It is looked at again then, or
-- after a while ($6) if that is sooner. No row: the slot is another process's by now.
UPDATE public.job_slots
SET state = 'queued', error = $4, not_before = $5, next_at = least($5, public.job_clock() + $6::interval)
WHERE job = $1 AND slot = $2 AND attempts = $3 AND state = 'running'
