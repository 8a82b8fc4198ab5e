-- The users of a company ($1) with calls, net of voids, from a day ($2) to another one ($3), which is not included.
SELECT user_id
FROM usage_daily
WHERE company_id = $1 AND day >= toDate($2) AND day < toDate($3)
GROUP BY user_id
HAVING sum(total_api_calls) > 0
