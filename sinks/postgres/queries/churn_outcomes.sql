-- How many users were judged at the ends of the months from one ($1) to another ($2), by what was said of them and what they did. Late: when more
-- than three days were over of the month that was to be predicted. Active: with a call in the month at whose end they were judged.
SELECT
    month,
    (score * 100)::bigint AS score,
    flagged,
    idle,
    outcome,
    coalesce(detail #>> '{usage_trend,current_month}', '0') <> '0' AS active,
    count(*) AS users,
    count(*) FILTER (WHERE created_at >= (to_date(month, 'YYYY-MM') + interval '1 month 3 days') AT TIME ZONE 'UTC') AS late
FROM public.recommendations
WHERE month >= $1 AND month <= $2 AND kind = 'churn' AND outcome IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6
