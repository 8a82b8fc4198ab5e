-- Gives up an attempt ($3) at a slot ($2) of a job ($1). It is tried again after a while ($5), because of an error ($4; null: it was stopped, and has failed at
-- nothing). One that was asked for by hand ends after a number of failures ($6). No row: the slot is another process's by now.
UPDATE public.job_slots
SET failures = failures + ($4::text IS NOT NULL)::integer, error = coalesce($4::text, error),
    state = CASE WHEN asked_by <> '' AND $4::text IS NOT NULL AND failures + 1 >= $6 THEN 'failed' ELSE 'queued' END,
    finished_at = CASE WHEN asked_by <> '' AND $4::text IS NOT NULL AND failures + 1 >= $6 THEN greatest(public.job_clock(), started_at) END,
    next_at = CASE WHEN asked_by <> '' AND $4::text IS NOT NULL AND failures + 1 >= $6 THEN NULL ELSE public.job_clock() + $5::interval END
WHERE job = $1 AND slot = $2 AND attempts = $3 AND state = 'running'
