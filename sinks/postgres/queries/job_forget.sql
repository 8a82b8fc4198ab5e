-- Removes slots of a job ($1) that are older than any job looks back ($2), have ended, and whose events are in the log. A clock that is ahead removes no more than
-- the plan of before it.
DELETE FROM public.job_slots
WHERE job = $1 AND slot < least(public.job_clock(), (SELECT j.planned_to FROM public.jobs AS j WHERE j.job = $1)) - $2::interval
    AND finished_at IS NOT NULL AND (state <> 'done' OR published_at IS NOT NULL)
