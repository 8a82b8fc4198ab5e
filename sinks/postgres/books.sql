-- What the public tables say of one company ($1). There is always one row.
SELECT
    coalesce(c.status, ''), coalesce(c.currency, ''),
    s.company_id IS NOT NULL, coalesce(s.tier, ''), coalesce(s.status, ''), s.period_start, s.period_end, coalesce(s.period_months, 1),
    coalesce(s.price_minor, 0), s.effective_limits, s.grace_until, s.renewal_until, coalesce(s.payment_failed, false), s.expired_term,
    coalesce(b.charged, 0), coalesce(b.received, 0),
    f.config,
    -- to_regclass would be an error where the schema may not be used.
    EXISTS (
        SELECT FROM pg_catalog.pg_class AS r JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
        WHERE n.nspname = public.tenant_schema_name($1) AND r.relname = 'users'
    ),
    -- A company and its subscription end one after the other, within seconds where the topics are read to their ends.
    coalesce(c.status <> 'active' AND s.closed_at IS NULL AND greatest(c.updated_at, s.updated_at) < statement_timestamp() - interval '15 minutes', false)
        AND s.company_id IS NOT NULL,
    coalesce(c.status = 'active' AND s.closed_at < statement_timestamp() - interval '15 minutes' AND s.updated_at < statement_timestamp() - interval '15 minutes', false)
FROM (SELECT 1) AS one
LEFT JOIN public.companies AS c ON c.company_id = $1
LEFT JOIN public.subscriptions AS s ON s.company_id = $1
LEFT JOIN public.company_config AS f ON f.company_id = $1
LEFT JOIN LATERAL public.period_books(s) AS b ON s.company_id IS NOT NULL
