-- Companies after $1 by their id, at most $2 of them.
SELECT
    c.company_id,
    c.name,
    c.status,
    coalesce(s.tier, '') AS tier,
    coalesce(s.status, '') AS subscription_status,
    (SELECT count(*) FROM public.user_directory AS u WHERE u.company_id = c.company_id) AS users,
    public.tenant_schema_version(c.company_id) AS version
FROM public.companies AS c
LEFT JOIN public.subscriptions AS s USING (company_id)
WHERE c.company_id > $1
ORDER BY c.company_id
LIMIT $2
