-- Makes jobs ($1) known that recur every hour, day, week or month ($2). A job that is new begins with its next slot.
INSERT INTO public.jobs (job, every, first_seen, planned_to)
SELECT n.job, n.every, public.job_clock(), date_trunc(n.every, public.job_clock() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
FROM unnest($1::text[], $2::text[]) AS n (job, every)
ON CONFLICT (job) DO UPDATE SET every = excluded.every WHERE jobs.every <> excluded.every
