-- Adds slots ($2) of a job ($1) in a state ($3): due, or skipped. Those that are there were asked for by hand.
INSERT INTO public.job_slots (job, slot, state, started_at, next_at, finished_at)
SELECT $1, n.slot, n.state, NULL,
    CASE WHEN n.state = 'due' THEN public.job_clock() END, CASE WHEN n.state = 'skipped' THEN public.job_clock() END
FROM unnest($2::timestamptz[], $3::text[]) AS n (slot, state)
ON CONFLICT DO NOTHING
