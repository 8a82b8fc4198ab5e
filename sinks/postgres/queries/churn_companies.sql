-- The next companies ($3: at most how many) after one ($2) whose users were judged at the end of a month ($1), in the order of their ids.
SELECT DISTINCT company_id
FROM public.recommendations
WHERE month = $1 AND kind = 'churn' AND company_id > $2
ORDER BY company_id
LIMIT $3
