-- All that is known of company $1, in one row.
SELECT c.company_id, c.name, c.status, s.tier, s.status,
    (SELECT count(*) FROM public.user_directory AS u WHERE u.company_id = c.company_id),
    public.tenant_schema_version(c.company_id),
    public.tenant_size(c.company_id),
    c.billing_email, c.currency, c.created_at, c.closed_at,
    (SELECT count(*) FROM public.user_directory AS u WHERE u.company_id = c.company_id AND u.subscription_status = 'suspended'),
    s.period_start, s.period_end, s.price_minor, s.pending_tier, s.due_at, s.limits,
    (SELECT n.nspname FROM pg_catalog.pg_namespace AS n WHERE n.nspname = public.tenant_schema_name(c.company_id)),
    h.audit_seq, h.last_effect_at,
    b.reason, b.detail, b.blocked_by, b.since,
    (SELECT count(*) FROM public.inbox AS i WHERE i.company_id = c.company_id AND i.state = 'waiting'),
    (SELECT count(*) FROM public.inbox AS i WHERE i.company_id = c.company_id AND i.fault IS NOT NULL)
FROM public.companies AS c
LEFT JOIN public.subscriptions AS s USING (company_id)
LEFT JOIN public.company_heads AS h USING (company_id)
LEFT JOIN public.company_blocks AS b USING (company_id)
WHERE c.company_id = $1
