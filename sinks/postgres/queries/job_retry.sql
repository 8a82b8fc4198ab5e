-- Gives up an attempt ($3) at a slot ($2) of a job ($1). It is tried again after a while ($5), because of an error ($4; null: it was stopped, and has failed at
-- nothing). No row: the slot is another process's by now.
UPDATE public.job_slots SET state = 'queued', error = coalesce($4, error), next_at = public.job_clock() + $5::interval
WHERE job = $1 AND slot = $2 AND attempts = $3 AND state = 'running'
