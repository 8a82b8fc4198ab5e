-- The next users ($3: at most how many) of a company ($1) after one ($2), in the order of their ids.
SELECT user_id
FROM public.user_directory
WHERE company_id = $1 AND user_id > $2
ORDER BY user_id
LIMIT $3
