-- How many companies had users who were judged at the ends of the months from one ($1) to another ($2), by tier and by whether a larger one was
-- recommended for one of them; how many of the companies were upgraded in the month behind; and how many users it was recommended for.
SELECT
    c.month,
    c.tier,
    c.recommended,
    count(*) AS companies,
    count(*) FILTER (WHERE EXISTS (
        SELECT FROM public.subscription_events AS e
        WHERE e.company_id = c.company_id AND e.event = 'subscription.upgraded'
            AND e.event_time >= (to_date(c.month, 'YYYY-MM') + interval '1 month') AT TIME ZONE 'UTC'
            AND e.event_time < (to_date(c.month, 'YYYY-MM') + interval '2 months') AT TIME ZONE 'UTC')) AS upgraded,
    sum(c.users)::bigint AS users
FROM (
    SELECT month, company_id, max(tier) AS tier, bool_or(kind = 'upsell') AS recommended, count(*) FILTER (WHERE kind = 'upsell') AS users
    FROM public.recommendations
    WHERE month >= $1 AND month <= $2 AND outcome IS NOT NULL
    GROUP BY month, company_id
) AS c
GROUP BY 1, 2, 3
