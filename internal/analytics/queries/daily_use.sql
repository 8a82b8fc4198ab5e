-- What the users of a company ($1) have used from a day ($2) to another one ($3), which is not included: their active days, and the calls and
-- data points of those. A user's tier may have changed within a day, which is two rows then. A day whose calls were all voided is not active.
SELECT user_id, toInt64(count()) AS active_days, toInt64(sum(calls)) AS all_calls, toInt64(sum(points)) AS all_points
FROM (
    SELECT user_id, day, sum(total_api_calls) AS calls, sum(total_data_consumption) AS points
    FROM usage_daily
    WHERE company_id = $1 AND day >= toDate($2) AND day < toDate($3)
    GROUP BY user_id, day
    HAVING calls > 0
)
GROUP BY user_id
