-- What Postgres' catalogues say of the borders between companies: of each check how many objects or roles it looked at, and how many rights it found that
-- no company may have. A company's role begins with tenant_, as its schema does, and both have one name. "PUBLIC" is every login.
WITH schemas AS (
    SELECT n.oid, n.nspname AS name, n.nspacl AS acl, n.nspowner AS owner
    FROM pg_catalog.pg_namespace AS n WHERE starts_with(n.nspname, 'tenant_')
),
roles AS ( -- roles belong to the whole server: those of this database's companies
    SELECT r.* FROM pg_catalog.pg_roles AS r JOIN public.companies AS c ON r.rolname = 'tenant_' || c.company_id
),
relations AS (
    SELECT s.name, r.oid, r.relacl AS acl, r.relowner AS owner
    FROM schemas AS s JOIN pg_catalog.pg_class AS r ON r.relnamespace = s.oid WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
),
-- Rights on what is a company's own, and the owners, who have every right. A tenant's role owns nothing, not even in its own schema.
rights AS (
    SELECT 'schemas' AS check_name, s.name, a.grantee, false AS owns FROM schemas AS s CROSS JOIN LATERAL aclexplode(s.acl) AS a
    UNION ALL SELECT 'schemas', s.name, s.owner, true FROM schemas AS s
    UNION ALL SELECT 'tables', r.name, a.grantee, false FROM relations AS r CROSS JOIN LATERAL aclexplode(r.acl) AS a
    UNION ALL SELECT 'tables', r.name, r.owner, true FROM relations AS r
    UNION ALL SELECT 'tables', r.name, a.grantee, false
    FROM relations AS r JOIN pg_catalog.pg_attribute AS t ON t.attrelid = r.oid AND t.attacl IS NOT NULL CROSS JOIN LATERAL aclexplode(t.attacl) AS a
),
strangers AS (
    SELECT g.check_name, count(*) AS leaks
    FROM rights AS g LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = g.grantee
    WHERE g.grantee = 0 OR starts_with(r.rolname, 'tenant_') AND (g.owns OR r.rolname <> g.name)
    GROUP BY g.check_name
),
-- No company has a right on the tables of all, and neither has every login, but on those that an extension has made.
shared AS (
    SELECT r.oid, r.relacl AS acl FROM pg_catalog.pg_class AS r
    WHERE r.relnamespace = 'public'::regnamespace AND r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype = 'e')
)
SELECT 'schemas' AS name, (SELECT count(*) FROM schemas) AS checked, coalesce((SELECT s.leaks FROM strangers AS s WHERE s.check_name = 'schemas'), 0) AS leaks
UNION ALL
SELECT 'tables', (SELECT count(*) FROM relations), coalesce((SELECT s.leaks FROM strangers AS s WHERE s.check_name = 'tables'), 0)
UNION ALL
SELECT 'shared_tables', (SELECT count(*) FROM shared), (
    SELECT count(*) FROM shared AS s CROSS JOIN LATERAL aclexplode(s.acl) AS a LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
    WHERE a.grantee = 0 OR starts_with(r.rolname, 'tenant_'))
UNION ALL
SELECT 'memberships', (SELECT count(*) FROM roles), (SELECT count(*) FROM pg_catalog.pg_auth_members AS m JOIN roles AS r ON r.oid = m.member)
UNION ALL
SELECT 'attributes', (SELECT count(*) FROM roles),
    (SELECT count(*) FROM roles AS r WHERE r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls)
