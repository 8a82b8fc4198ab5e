-- Every company, also closed and purged ones: what it has and pays a month now, and the effects that moved that, as arrays in the order in which they
-- were recorded. tier is empty where there is no subscription, or where it has ended with the company.
SELECT
    c.company_id,
    c.currency,
    c.created_at,
    CASE WHEN c.status = 'active' AND s.closed_at IS NULL THEN coalesce(s.tier, '') ELSE '' END AS tier,
    CASE WHEN s.closed_at IS NULL THEN coalesce(s.price_minor, 0) ELSE 0 END AS price_minor,
    coalesce(e.times, '{}') AS times,
    coalesce(e.events, '{}') AS events,
    coalesce(e.tiers, '{}') AS tiers,
    coalesce(e.prices, '{}') AS prices,
    coalesce(e.reinstated, '{}') AS reinstated
FROM public.companies AS c
LEFT JOIN public.subscriptions AS s ON s.company_id = c.company_id
LEFT JOIN (
    SELECT
        h.company_id,
        array_agg(h.event_time ORDER BY h.id) AS times,
        array_agg(h.event ORDER BY h.id) AS events,
        array_agg(coalesce(h.data ->> 'to', h.data ->> 'tier', '') ORDER BY h.id) AS tiers,
        array_agg(CASE WHEN h.data ->> 'price_minor' ~ '^[0-9]{1,18}$' THEN (h.data ->> 'price_minor')::bigint END ORDER BY h.id) AS prices,
        array_agg(coalesce(h.data ->> 'reinstated' = 'true', false) ORDER BY h.id) AS reinstated
    FROM public.subscription_events AS h
    WHERE h.event IN ('subscription.upgraded', 'subscription.downgraded', 'subscription.renewed',
            'subscription.cancelled', 'subscription.expired', 'subscription.closed')
        OR h.event = 'subscription.payment_recorded' AND h.data ->> 'reinstated' = 'true'
    GROUP BY h.company_id
) AS e ON e.company_id = c.company_id
ORDER BY c.company_id
