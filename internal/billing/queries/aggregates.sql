-- The monthly totals of a company ($1) and a billing period ($2), added up.
SELECT
    toInt64(sum(total_api_calls)) AS calls,
    toInt64(sum(total_data_consumption)) AS points,
    CAST(sum(monthly_revenue_attributed), 'Decimal(38, 6)') AS attributed
FROM billing_monthly
WHERE company_id = $1 AND billing_period = $2
