-- What Postgres' catalogues say of the borders between companies: of each check how many objects or roles there are to look at, and how many rights were
-- found that no company may have. The view isolation_leaks has them one by one.
WITH leaks AS MATERIALIZED (
    SELECT l.check_name, count(*) AS leaks FROM public.isolation_leaks AS l GROUP BY l.check_name
)
SELECT k.name, k.checked, coalesce((SELECT l.leaks FROM leaks AS l WHERE l.check_name = k.name), 0) AS leaks
FROM (
    SELECT 'schemas' AS name, (SELECT count(*) FROM pg_catalog.pg_namespace AS n WHERE starts_with(n.nspname, 'tenant_')) AS checked
    UNION ALL
    SELECT 'tables', (SELECT count(*) FROM pg_catalog.pg_class AS r JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
        WHERE starts_with(n.nspname, 'tenant_') AND r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))
    UNION ALL
    SELECT 'shared_tables', (SELECT count(*) FROM pg_catalog.pg_class AS r WHERE r.relnamespace = 'public'::regnamespace AND r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))
    UNION ALL
    SELECT c.name, (SELECT count(*) FROM pg_catalog.pg_roles AS r JOIN public.companies AS o ON r.rolname = 'tenant_' || o.company_id)
    FROM (VALUES ('memberships'), ('attributes')) AS c (name)
) AS k
