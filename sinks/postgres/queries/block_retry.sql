-- Companies ($1: at most how many) that can't go on and are to be tried again. For ten seconds no other process gets them.
UPDATE public.company_blocks AS b
SET next_try = clock_timestamp() + interval '10 seconds'
FROM (
    SELECT company_id FROM public.company_blocks WHERE next_try <= statement_timestamp()
    ORDER BY next_try LIMIT $1 FOR UPDATE SKIP LOCKED) AS due
WHERE b.company_id = due.company_id
RETURNING b.company_id
