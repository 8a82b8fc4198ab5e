-- What is known of a company ($1: its id). The version is as in users.sql.
SELECT
    c.company_id,
    c.billing_email,
    coalesce(s.tier, '') AS tier,
    s.effective_limits AS limits,
    coalesce(t.support_level, free.support_level, '') AS support_level,
    f.config,
    p.starts AS start,
    p.ends AS "end",
    CASE WHEN s.company_id IS NULL THEN '' WHEN c.status <> 'active' THEN 'closed' ELSE s.status END AS status,
    s.company_id IS NOT NULL AND t.tier IS NULL AS not_in_catalogue,
    greatest(c.version, f.version, s.version) AS version,
    coalesce(public.data_origin(), '') AS origin
FROM public.companies AS c
LEFT JOIN public.company_config AS f ON f.company_id = c.company_id
LEFT JOIN public.subscriptions AS s ON s.company_id = c.company_id
LEFT JOIN public.subscription_tiers AS t ON t.tier = s.tier
LEFT JOIN LATERAL public.current_period(s.period_start, s.period_end, s.price_minor) AS p ON s.company_id IS NOT NULL
LEFT JOIN public.subscription_tiers AS free ON free.tier = 'free'
WHERE c.company_id = $1 AND c.status <> 'purged'
