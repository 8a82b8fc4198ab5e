-- Puts an attempt ($3) at a slot ($2) of a job ($1) off: its work can't be done before a time ($5), for a reason ($4). It is looked at again then, or
-- after a while ($6) if that is sooner. A time within that while is merely the next look: from when on the slot is late stays as it is. No row: the slot is another process's by now.
UPDATE public.job_slots
SET state = 'queued', error = $4,
    not_before = CASE WHEN $5::timestamptz > public.job_clock() + $6::interval THEN $5 ELSE least(not_before, $5) END,
    next_at = greatest(least($5, public.job_clock() + $6::interval), public.job_clock() + interval '10 seconds')
WHERE job = $1 AND slot = $2 AND attempts = $3 AND state = 'running'
