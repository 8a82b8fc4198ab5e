-- The subscription of a company ($1: its id), with how many users it is for. No row: there is no such company, it was purged, or it
-- has no subscription. subscription_effect_at is the time before which no event of subscription.events takes effect any more.
SELECT
    c.company_id,
    c.status AS company_status,
    s.tier,
    s.status,
    p.starts AS period_start,
    p.ends AS period_end,
    s.period_months AS months,
    coalesce(s.anchor_day, 0) AS anchor_day,
    s.price_minor,
    s.currency,
    coalesce(s.pending_tier, '') AS pending_tier,
    s.pending_at,
    s.cancel_at_period_end AS cancel_at_end,
    s.grace_until,
    s.renewal_until,
    s.next_period_start,
    s.next_period_end,
    s.next_renewal AS renewal,
    s.payment_failed AS failed,
    s.expired_term AS expired,
    s.limits,
    s.benefits,
    s.closed_at,
    s.closed_in,
    s.event_partition AS partition,
    coalesce((
        SELECT jsonb_agg(to_jsonb(o) - '{company_id,event_partition}'::text[] ORDER BY o.limit_name)
        FROM public.limit_overrides AS o WHERE o.company_id = c.company_id), '[]') AS overrides,
    b.charged,
    b.tiers,
    b.received,
    a.received AS ahead_received,
    a.failed AS ahead_failed,
    h.subscription_effect_at AS effect_at,
    users.active AS active_users,
    users.suspended AS suspended_users
FROM public.companies AS c
JOIN public.subscriptions AS s ON s.company_id = c.company_id
LEFT JOIN public.company_heads AS h ON h.company_id = c.company_id
CROSS JOIN LATERAL public.current_period(s.period_start, s.period_end, s.price_minor) AS p
CROSS JOIN LATERAL public.period_books(s) AS b
CROSS JOIN LATERAL (
    -- Of the period that is recorded ahead: the payments that belong to it, and those for its month, which will.
    SELECT
        coalesce(sum(p.amount_minor) FILTER (WHERE p.status = 'received'), 0)::bigint AS received,
        coalesce(bool_or(p.status = 'failed' AND p.period_start IS NOT NULL), false) AS failed
    FROM public.payments AS p
    WHERE s.next_period_start IS NOT NULL AND p.company_id = c.company_id AND (p.period_start = s.next_period_start
        OR p.period_start IS NULL AND p.billing_period = to_char(s.next_period_start AT TIME ZONE 'UTC', 'YYYY-MM'))
) AS a
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE u.subscription_status = 'active') AS active,
        count(*) FILTER (WHERE u.subscription_status <> 'active') AS suspended
    FROM public.user_directory AS u
    WHERE u.company_id = c.company_id
) AS users
WHERE c.company_id = $1 AND c.status <> 'purged'
