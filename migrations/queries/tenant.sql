-- All that is known of company $1, in one row, but for its size.
SELECT
    c.company_id,
    c.name,
    c.status,
    coalesce(s.tier, '') AS tier,
    coalesce(s.status, '') AS subscription_status,
    (SELECT count(*) FROM public.user_directory AS u WHERE u.company_id = c.company_id) AS users,
    public.tenant_schema_version(c.company_id) AS version,
    c.billing_email,
    c.currency,
    c.created_at,
    c.closed_at,
    (SELECT count(*) FROM public.user_directory AS u WHERE u.company_id = c.company_id AND u.subscription_status = 'suspended') AS suspended_users,
    s.period_start,
    s.period_end,
    s.price_minor,
    s.pending_tier,
    s.due_at,
    s.effective_limits AS limits,
    coalesce((
        SELECT jsonb_agg(to_jsonb(o) - '{company_id,event_partition}'::text[] ORDER BY o.limit_name)
        FROM public.limit_overrides AS o WHERE o.company_id = c.company_id), '[]') AS overrides,
    (SELECT n.nspname FROM pg_catalog.pg_namespace AS n WHERE n.nspname = public.tenant_schema_name(c.company_id)) AS schema,
    h.audit_seq,
    h.last_effect_at,
    CASE WHEN b.company_id IS NOT NULL THEN
        jsonb_build_object('reason', b.reason, 'detail', b.detail, 'blocked_by', b.blocked_by, 'since', b.since) END AS blocked,
    (SELECT count(*) FROM public.inbox AS i WHERE i.company_id = c.company_id AND i.state = 'waiting') AS waiting,
    (SELECT count(*) FROM public.inbox AS i WHERE i.company_id = c.company_id AND i.fault IS NOT NULL) AS faulty
FROM public.companies AS c
LEFT JOIN public.subscriptions AS s USING (company_id)
LEFT JOIN public.company_heads AS h USING (company_id)
LEFT JOIN public.company_blocks AS b ON b.company_id = c.company_id
WHERE c.company_id = $1
