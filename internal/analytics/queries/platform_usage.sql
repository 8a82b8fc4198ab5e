-- The usage of all companies from a day ($1) to another one ($2), which is not included, by month, company and tier, and by month and company over
-- all tiers, which has an empty tier: a user who changed the tier in a month is one user of it. Tiers that are not in the list $3 are one,
-- called other: events may name any. It reads the store, whose rows it adds up by user and month, and not the view, which would add them
-- up by day first. A user whose calls were all voided is not active.
SELECT
    month,
    company_id,
    if(has($3, toString(named)), toString(named), 'other') AS tier,
    uniqExactIf(user_id, calls > 0) AS users,
    toInt64(sum(calls)) AS all_calls,
    CAST(sum(amount), 'Decimal(38, 6)') AS attributed
FROM (
    SELECT
        toYYYYMM(day) AS month,
        company_id,
        user_id,
        subscription_tier AS named,
        sum(api_calls) AS calls,
        sum(usage_daily_store.revenue) AS amount
    FROM usage_daily_store
    WHERE day >= toDate($1) AND day < toDate($2)
    GROUP BY month, company_id, user_id, named
)
GROUP BY GROUPING SETS ((month, company_id, tier), (month, company_id))
SETTINGS group_by_use_nulls = 0
