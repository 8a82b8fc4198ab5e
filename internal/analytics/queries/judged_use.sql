-- The calls of the users of a company ($1) in three months that follow each other, beginning with the days $2, $3 and $4 and ending before $5, and
-- when they were active last before that. Only users with calls in the second or the third month.
SELECT
    user_id,
    toInt64(sumIf(total_api_calls, day < toDate($3))) AS first_month,
    toInt64(sumIf(total_api_calls, day >= toDate($3) AND day < toDate($4))) AS second_month,
    toInt64(sumIf(total_api_calls, day >= toDate($4))) AS third_month,
    maxIf(usage_daily.last_activity, total_api_calls > 0) AS active_last
FROM usage_daily
WHERE company_id = $1 AND day >= toDate($2) AND day < toDate($5)
GROUP BY user_id
HAVING second_month > 0 OR third_month > 0
