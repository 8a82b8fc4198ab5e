-- What a company ($1: its id) was charged, by the UTC month that the period begins in and by the tier that the charge is for; the effects that
-- moved what it pays a month, in the order in which they were recorded; what it pays a month now; and what a month of each tier costs today. No row: there is no such
-- company, it was purged, or it has no subscription.
SELECT
    c.currency,
    c.created_at,
    CASE WHEN s.closed_at IS NULL THEN s.price_minor ELSE 0 END AS price_minor,
    coalesce((
        SELECT jsonb_agg(to_jsonb(t) ORDER BY t.month, t.tier, t.currency)
        FROM (
            SELECT
                to_char(coalesce(b.period_start, b.created_at) AT TIME ZONE 'UTC', 'YYYY-MM') AS month,
                coalesce(b.new_tier, b.old_tier, 'free') AS tier,
                b.currency,
                sum(b.amount_minor)::bigint AS amount_minor
            FROM public.billing_transactions AS b
            WHERE b.company_id = c.company_id AND b.amount_minor <> 0
            GROUP BY 1, 2, 3
        ) AS t), '[]') AS charges,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object(
                'at', e.event_time,
                'event', e.event,
                'tier', coalesce(e.data ->> 'to', e.data ->> 'tier', ''),
                'price_minor', CASE WHEN e.data ->> 'price_minor' ~ '^[0-9]{1,18}$' THEN (e.data ->> 'price_minor')::bigint END,
                'reinstated', coalesce(e.data ->> 'reinstated' = 'true', false)
            ) ORDER BY e.id)
        FROM public.subscription_events AS e
        WHERE e.company_id = c.company_id AND (e.event IN ('subscription.upgraded', 'subscription.downgraded', 'subscription.renewed',
            'subscription.cancelled', 'subscription.expired', 'subscription.closed')
            OR e.event = 'subscription.payment_recorded' AND e.data ->> 'reinstated' = 'true')
        ), '[]') AS effects,
    (SELECT coalesce(jsonb_object_agg(t.tier, t.price_minor), '{}') FROM public.subscription_tiers AS t) AS prices
FROM public.companies AS c
JOIN public.subscriptions AS s ON s.company_id = c.company_id
WHERE c.company_id = $1 AND c.status <> 'purged'
