-- Notes up to where ($2) a job ($1) is planned, and how many more slots were missed ($3) and skipped ($4).
UPDATE public.jobs SET planned_to = greatest(planned_to, $2), missed = missed + $3, skipped = skipped + $4 WHERE job = $1
