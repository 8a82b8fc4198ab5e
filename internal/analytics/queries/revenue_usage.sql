-- The usage of a company ($1) from a day ($2) to another one ($3), which is not included, by month and tier, and by month over all tiers,
-- which has an empty tier: a user who changed the tier in a month is one user of it. A user whose calls were all voided is not active.
SELECT
    toYYYYMM(day) AS month,
    toString(subscription_tier) AS tier,
    uniqExactIf(user_id, total_api_calls > 0) AS users,
    toInt64(sum(total_api_calls)) AS calls,
    CAST(sum(revenue_attributed), 'Decimal(38, 6)') AS attributed
FROM usage_daily
WHERE company_id = $1 AND day >= toDate($2) AND day < toDate($3)
GROUP BY GROUPING SETS ((month, tier), (month))
SETTINGS group_by_use_nulls = 0
