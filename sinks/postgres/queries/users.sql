-- What is known of users ($1: their ids) who belong to one of some companies ($2; null: to any), with the last companies they belonged
-- to. The version is that of the newest row the answer is made of; a change of any of them is recorded with that version in the table
-- changes.
SELECT
    u.user_id,
    u.company_id,
    u.email,
    u.subscription_status AS status,
    coalesce(u.subscription_start_date, p.starts) AS start_date,
    coalesce(u.subscription_end_date, p.ends) AS end_date,
    u.created_at,
    u.updated_at,
    u.last_activity,
    coalesce(s.tier, '') AS tier,
    CASE WHEN s.company_id IS NULL THEN '' WHEN c.status <> 'active' THEN 'closed' ELSE s.status END AS billing_status,
    s.effective_limits AS limits,
    s.company_id IS NOT NULL AND t.tier IS NULL AS not_in_catalogue,
    greatest(u.version, c.version, f.version, s.version) AS version,
    m.companies,
    m.since,
    m.until,
    m.recorded_at,
    m.ended_at,
    o.origin
FROM public.user_directory AS u
CROSS JOIN (SELECT coalesce(public.data_origin(), '') AS origin) AS o -- once, for all rows
JOIN public.companies AS c ON c.company_id = u.company_id
LEFT JOIN public.company_config AS f ON f.company_id = u.company_id
LEFT JOIN public.subscriptions AS s ON s.company_id = u.company_id
LEFT JOIN public.subscription_tiers AS t ON t.tier = s.tier
LEFT JOIN LATERAL public.current_period(s.period_start, s.period_end, s.price_minor) AS p ON s.company_id IS NOT NULL
CROSS JOIN LATERAL (
    SELECT array_agg(m.company_id) AS companies, array_agg(m.since) AS since, array_agg(m.until) AS until,
        array_agg(m.recorded_at) AS recorded_at, array_agg(m.ended_at) AS ended_at
    FROM (
        SELECT company_id, since, until, recorded_at, ended_at FROM public.user_memberships
        WHERE user_id = u.user_id ORDER BY since DESC, company_id LIMIT 32) AS m) AS m
WHERE u.user_id = ANY ($1) AND ($2::text[] IS NULL OR u.company_id = ANY ($2))
