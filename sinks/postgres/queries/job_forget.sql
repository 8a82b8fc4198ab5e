-- Removes slots of a job ($1) that are older than any job looks back ($2), have ended, and whose events are in the log.
DELETE FROM public.job_slots
WHERE job = $1 AND slot < public.job_clock() - $2::interval AND finished_at IS NOT NULL AND (state <> 'done' OR published_at IS NOT NULL)
