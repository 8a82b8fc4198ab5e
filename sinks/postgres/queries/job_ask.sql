-- Has a slot ($2) of a job ($1) done because a person ($3) asked for it: one that was missed, has failed or was skipped. No row: it is done, or
-- under way. The caller publishes its event; should it die, another process does after a while ($4).
INSERT INTO public.job_slots (job, slot, state, started_at, next_at, asked_by)
VALUES ($1, $2, 'due', NULL, public.job_clock() + $4::interval, $3)
ON CONFLICT (job, slot) DO UPDATE
SET state = 'due', finished_at = NULL, next_at = excluded.next_at, asked_by = excluded.asked_by, error = '', result = NULL
WHERE job_slots.state IN ('failed', 'skipped')
RETURNING slot
