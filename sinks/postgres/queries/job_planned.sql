-- Notes up to where ($2) a job ($1) is planned, and how many more slots were missed ($3) and skipped ($4). It only goes back if that was decided ($5).
UPDATE public.jobs SET planned_to = CASE WHEN $5 THEN $2 ELSE greatest(planned_to, $2) END, missed = missed + $3, skipped = skipped + $4 WHERE job = $1
