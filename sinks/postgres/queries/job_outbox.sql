-- Takes the events of some jobs ($1) that are to be published for a while ($2), so that one process publishes them. A time to go on at that
-- lies further ahead than any wait ($3) is left over from a clock that was set back.
UPDATE public.job_slots SET next_at = public.job_clock() + $2::interval
WHERE job = ANY ($1)
    AND (state = 'due' OR state = 'done' AND published_at IS NULL AND attempts > 0)
    AND (next_at <= public.job_clock() OR next_at > public.job_clock() + $3::interval)
RETURNING job, slot, state, result, finished_at
