-- +goose Up

-- What was reported of the business, once for every time a report was due. It is stored before it is published, so a report that is published
-- again is the same, byte for byte.
CREATE TABLE public.business_reports (
    slot         timestamptz PRIMARY KEY,
    reported_at  timestamptz NOT NULL,
    -- Not jsonb: it is published as it is.
    report       json        NOT NULL CHECK (json_typeof(report) = 'object'),
    published_at timestamptz
);
COMMENT ON TABLE public.business_reports IS 'The business metrics as they were reported. Old rows are removed by the service.';
COMMENT ON COLUMN public.business_reports.slot IS 'The hour the report was due for.';
COMMENT ON COLUMN public.business_reports.reported_at IS 'When the metrics were computed.';
COMMENT ON COLUMN public.business_reports.report IS 'The metrics, exactly as they are published.';
COMMENT ON COLUMN public.business_reports.published_at IS 'When the report was known to be published; null: it may have to be, again.';

CREATE TABLE public.query_samples (
    id         bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sampled_at timestamptz      NOT NULL DEFAULT statement_timestamp(),
    tier       text             COLLATE "C" NOT NULL,
    route      text             COLLATE "C" NOT NULL,
    took       interval         NOT NULL CHECK (took >= interval '0'),
    weight     double precision NOT NULL CHECK (weight >= 1 AND weight < 'infinity')
);
CREATE INDEX query_samples_by_time ON public.query_samples (sampled_at);
COMMENT ON TABLE public.query_samples IS 'A sample of the queries of the last 24 hours that /v1 answered about companies and their users. It names neither.';
COMMENT ON COLUMN public.query_samples.tier IS 'That of the company when the sample was written.';
COMMENT ON COLUMN public.query_samples.route IS 'The path that was asked for, with names in braces in place of ids.';
COMMENT ON COLUMN public.query_samples.took IS 'How long the answer took to make, also one that failed.';
COMMENT ON COLUMN public.query_samples.weight IS 'How many queries of the route the sample stands for.';

-- Rights in Postgres that reach across the borders between companies, one in a row; none where everything is right. A company's role and its schema have one name,
-- which begins with tenant_. A login belongs to the companies whose roles it is a member of, also by way of others; it must belong to one at
-- most. Memberships that only let a role be given on, as the service's are from Postgres 16 on, are none. '*' stands for database_service_role, which
-- may see all companies.
CREATE VIEW public.isolation_leaks AS
WITH RECURSIVE edges AS (
    SELECT m.member, m.roleid FROM pg_catalog.pg_auth_members AS m
    WHERE coalesce((to_jsonb(m) ->> 'set_option')::boolean, true) OR coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true)
),
belongs (role, name) AS (
    SELECT r.oid, (CASE WHEN r.rolname = 'database_service_role' THEN '*' ELSE r.rolname::text END) COLLATE "C"
    FROM pg_catalog.pg_roles AS r WHERE starts_with(r.rolname, 'tenant_') OR r.rolname = 'database_service_role'
    UNION
    SELECT e.member, b.name FROM edges AS e JOIN belongs AS b ON b.role = e.roleid
),
schemas AS (
    SELECT n.oid, n.nspname::text COLLATE "C" AS name, n.nspacl AS acl, n.nspowner AS owner FROM pg_catalog.pg_namespace AS n WHERE starts_with(n.nspname, 'tenant_')
),
relations AS (
    SELECT s.name, r.oid, r.oid::regclass::text AS object, r.relacl AS acl, r.relowner AS owner
    FROM schemas AS s JOIN pg_catalog.pg_class AS r ON r.relnamespace = s.oid WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
),
rights AS (
    SELECT 'schemas' AS check_name, s.name, s.name AS object, a.grantee, a.privilege_type AS what FROM schemas AS s CROSS JOIN LATERAL aclexplode(s.acl) AS a
    UNION ALL SELECT 'schemas', s.name, s.name, s.owner, 'OWNER' FROM schemas AS s
    UNION ALL SELECT 'tables', r.name, r.object, a.grantee, a.privilege_type FROM relations AS r CROSS JOIN LATERAL aclexplode(r.acl) AS a
    UNION ALL SELECT 'tables', r.name, r.object, r.owner, 'OWNER' FROM relations AS r
    UNION ALL SELECT 'tables', r.name, r.object || '.' || t.attname, a.grantee, a.privilege_type
    FROM relations AS r JOIN pg_catalog.pg_attribute AS t ON t.attrelid = r.oid AND t.attacl IS NOT NULL CROSS JOIN LATERAL aclexplode(t.attacl) AS a
),
-- The companies of each role that has any.
companies_of AS (
    SELECT b.role, array_agg(b.name) AS names FROM belongs AS b WHERE b.name <> '*' GROUP BY b.role
),
-- Roles and memberships are the server's, which may have other databases: those of this one's companies.
here AS (
    SELECT b.role, b.name FROM belongs AS b JOIN public.companies AS c ON b.name = ('tenant_' || c.company_id) COLLATE "C"
)
SELECT g.check_name, g.object, CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee)::text END AS role, g.what
FROM rights AS g LEFT JOIN companies_of AS b ON b.role = g.grantee
WHERE g.grantee = 0 OR b.role IS NOT NULL AND (g.what = 'OWNER' OR g.name <> ALL (b.names))
UNION ALL
SELECT 'shared_tables', r.oid::regclass::text, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type
FROM pg_catalog.pg_class AS r CROSS JOIN LATERAL aclexplode(r.relacl) AS a LEFT JOIN companies_of AS b ON b.role = a.grantee
WHERE r.relnamespace = 'public'::regnamespace AND r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype = 'e')
    AND (a.grantee = 0 OR b.role IS NOT NULL)
UNION ALL
SELECT 'memberships', pg_get_userbyid(e.roleid)::text, pg_get_userbyid(e.member)::text, 'MEMBER'
FROM edges AS e JOIN here AS h ON h.role = e.member AND h.name = pg_get_userbyid(e.member)
UNION ALL
SELECT 'memberships', string_agg(DISTINCT b.name, ', '), pg_get_userbyid(b.role)::text, 'MEMBER'
FROM belongs AS b
WHERE b.role IN (SELECT h.role FROM here AS h) AND NOT starts_with(pg_get_userbyid(b.role)::text, 'tenant_') AND NOT EXISTS (SELECT FROM schemas AS s WHERE s.owner = b.role)
GROUP BY b.role HAVING count(DISTINCT b.name) > 1
UNION ALL
SELECT DISTINCT 'attributes', r.rolname::text, r.rolname::text, concat_ws(' ', CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
    CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END)
FROM pg_catalog.pg_roles AS r JOIN here AS h ON h.role = r.oid
WHERE (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls) AND NOT EXISTS (SELECT FROM schemas AS s WHERE s.owner = r.oid);
COMMENT ON VIEW public.isolation_leaks IS 'Rights in Postgres that reach across companies. It is empty where everything is right.';

-- +goose StatementBegin
-- What can be measured of the schema of a company: the bytes it takes, and whether it holds a position that was closed more than
-- retention_days ago. The latter is null without retention_days. Both are null where there is no schema with the tables of a company, where another session has
-- locked it, or where it is broken: one company's trouble must not keep the others from being measured. It shares nothing with what deletes positions.
CREATE FUNCTION public.measure_company(company_id text, retention_days integer, OUT bytes bigint, OUT overdue boolean) LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    tenant text := public.tenant_schema_name(company_id);
BEGIN
    IF to_regclass(format('%I.trading_positions', tenant)) IS NULL THEN
        RETURN;
    END IF;
    IF retention_days IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %I.trading_positions AS p WHERE p.closed_at < statement_timestamp() - $1 AND p.status <> ''open'')', tenant)
            INTO overdue USING make_interval(days => retention_days);
    END IF;
    bytes := public.tenant_size(company_id);
EXCEPTION WHEN OTHERS THEN -- whatever is wrong with the company's own objects; a stop of the statement is not among it
    IF left(SQLSTATE, 2) IN ('53', '57', '58') THEN
        RAISE; -- the server's trouble
    END IF;
    bytes := NULL;
    overdue := NULL;
END $$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION public.measure_company(text, integer) FROM PUBLIC;
COMMENT ON FUNCTION public.measure_company(text, integer) IS
    'The bytes of a company''s schema, and whether it holds positions that were closed longer ago than so many days. Null: it can''t be measured.';
