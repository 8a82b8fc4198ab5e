-- +goose Up

-- The functions of a company's schema. In all of them a company_id is checked before it becomes part of a name, the
-- search path holds nothing that somebody could write to, and only the owner may call them unless it is granted.

-- +goose StatementBegin
-- The name of the schema, and of the role, of a company. Any other id than 1 to 50 of A-Z a-z 0-9 _ - is an error.
CREATE FUNCTION public.tenant_schema_name(company_id text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF company_id IS NULL OR company_id COLLATE "C" !~ '^[A-Za-z0-9_-]{1,50}$' THEN
        RAISE EXCEPTION 'not a company_id: %', coalesce(quote_literal(left(company_id, 60)), 'null')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A company_id is 1 to 50 of A-Z, a-z, 0-9, _ and -.';
    END IF;
    RETURN 'tenant_' || company_id;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Makes all others who do the same for this company wait until the transaction ends. To be taken before anything else.
CREATE FUNCTION public.lock_company(company_id text) RETURNS void LANGUAGE sql
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_advisory_xact_lock(1952870756, hashtext(company_id));
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- The version of a company's tables; 0: it has none.
CREATE FUNCTION public.tenant_schema_version(company_id text) RETURNS bigint LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(max(v.version), 0) FROM public.tenant_schema_versions AS v WHERE v.company_id = tenant_schema_version.company_id;
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Lets both roles into the schema of a company, and gives the company's role, if it is there, exactly the rights that the
-- migrations of its tables have given database_service_role.
CREATE FUNCTION public.grant_company_schema(company_id text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant  text := public.tenant_schema_name(company_id);
    service oid  := 'database_service_role'::regrole;
    role    oid;
    other   record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO database_service_role', tenant);
    SELECT oid INTO role FROM pg_roles WHERE rolname = tenant;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', tenant, tenant);
    FOR other IN
        SELECT c.relname AS name, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
            string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FILTER (WHERE a.grantee = service) AS wanted,
            string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FILTER (WHERE a.grantee = role) AS there
        -- By pg_depend: pg_class has no index by schema, and is long where there are thousands of companies.
        FROM pg_depend AS d JOIN pg_class AS c ON c.oid = d.objid CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace(quote_ident(tenant))
            AND d.classid = 'pg_class'::regclass
        GROUP BY c.relname, c.relkind
        HAVING string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FILTER (WHERE a.grantee = service)
            IS DISTINCT FROM string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FILTER (WHERE a.grantee = role)
    LOOP
        IF other.there IS NOT NULL THEN
            EXECUTE format('REVOKE ALL ON %s %I.%I FROM %I', other.kind, tenant, other.name, tenant);
        END IF;
        IF other.wanted IS NOT NULL THEN
            EXECUTE format('GRANT %s ON %s %I.%I TO %I', other.wanted, other.kind, tenant, other.name, tenant);
        END IF;
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Applies the versions that the tables of a company do not have yet, in order, up to target (null: all), in the
-- caller's transaction. Returns the version there is then, which is never lower than before.
CREATE FUNCTION public.migrate_company_schema(company_id text, target bigint DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant  text := public.tenant_schema_name(company_id);
    company text := company_id;
    reached bigint;
    next    record;
    any_new boolean := false;
BEGIN
    PERFORM public.lock_company(company);
    IF target IS NOT NULL AND NOT EXISTS (SELECT FROM public.tenant_migrations AS m WHERE m.version = target) THEN
        RAISE EXCEPTION 'there is no version % of a company''s tables', target
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The versions are in public.tenant_migrations.';
    END IF;
    IF to_regnamespace(quote_ident(tenant)) IS NULL THEN
        RAISE EXCEPTION 'company % has no schema', company
            USING ERRCODE = 'invalid_schema_name', HINT = format('SELECT public.create_company_schema(%L);', company);
    END IF;
    reached := public.tenant_schema_version(company);
    FOR next IN
        SELECT m.version, m.name, m.up_sql FROM public.tenant_migrations AS m
        WHERE m.version > reached AND (target IS NULL OR m.version <= target) ORDER BY m.version
    LOOP
        -- The system's own schema is searched first also when it is not named.
        PERFORM set_config('search_path', format('%I, pg_temp', tenant), true);
        EXECUTE next.up_sql;
        PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
        INSERT INTO public.tenant_schema_versions (company_id, schema_name, version) VALUES (company, tenant, next.version);
        reached := next.version;
        any_new := true;
    END LOOP;
    IF any_new THEN
        PERFORM public.grant_company_schema(company);
    END IF;
    RETURN reached;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Makes the tables in the schema of a company, or brings them to the newest version.
CREATE FUNCTION public.create_company_tables(schema_name text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF schema_name IS NULL OR NOT starts_with(schema_name, 'tenant_') THEN
        RAISE EXCEPTION 'not the schema of a company: %', coalesce(quote_literal(left(schema_name, 70)), 'null')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is called tenant_ and the company_id.';
    END IF;
    PERFORM public.migrate_company_schema(substr(schema_name, length('tenant_') + 1));
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Makes the schema of a company, its role and its tables, as far as they are missing, and returns the schema's name. Into
-- a new one go the users that user_directory has of the company: for a company that was made by hand.
CREATE FUNCTION public.create_company_schema(company_id text) RETURNS text LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant  text := public.tenant_schema_name(company_id);
    is_new  boolean;
BEGIN
    PERFORM public.lock_company(company_id);
    is_new := to_regnamespace(quote_ident(tenant)) IS NULL;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = tenant) THEN
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', tenant);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- for another database of the server, just now
        END;
    END IF;
    -- A role that was there before may be somebody's, with rights that no company must get. One that is in use may
    -- have been allowed to log in.
    IF EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = tenant
            AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
                OR is_new AND (r.rolcanlogin OR EXISTS (SELECT FROM pg_auth_members AS m WHERE m.member = r.oid)))) THEN
        RAISE EXCEPTION 'role % is there with more rights than a company may have', quote_ident(tenant)
            USING ERRCODE = 'duplicate_object', HINT = 'Remove it or its rights.';
    END IF;
    IF is_new THEN
        EXECUTE format('CREATE SCHEMA %I', tenant);
    END IF;
    PERFORM public.create_company_tables(tenant);
    IF NOT has_schema_privilege(tenant, tenant, 'USAGE') THEN
        PERFORM public.grant_company_schema(company_id); -- the role was missing when the tables were made
    END IF;
    IF is_new THEN
        -- The directory takes any email, also none.
        EXECUTE format($fill$
            INSERT INTO %I.users (user_id, email, subscription_tier, subscription_status, subscription_start_date,
                subscription_end_date, subscription_limits, created_at, last_activity)
            SELECT d.user_id, CASE WHEN d.email = '' OR row_number() OVER (PARTITION BY d.email ORDER BY d.created_at, d.user_id) > 1
                THEN 'unknown:' || d.user_id ELSE d.email END,
                coalesce(s.tier, 'free'), d.subscription_status, s.period_start, s.period_end, s.limits, d.created_at, d.last_activity
            FROM public.user_directory AS d LEFT JOIN public.subscriptions AS s USING (company_id) WHERE d.company_id = $1
            $fill$, tenant) USING company_id;
    END IF;
    RETURN tenant;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Writes the configuration of a company, as its tier gives it, if it has none.
CREATE FUNCTION public.initialize_company_config(company_id text, schema_name text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    company text := company_id;
BEGIN
    IF public.tenant_schema_name(company) IS DISTINCT FROM schema_name THEN
        RAISE EXCEPTION '% is not the schema of company %', coalesce(quote_literal(left(schema_name, 70)), 'null'), company
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM public.lock_company(company);
    IF NOT EXISTS (SELECT FROM public.companies AS c WHERE c.company_id = company) THEN
        RAISE EXCEPTION 'there is no company % in public.companies', company USING ERRCODE = 'foreign_key_violation';
    END IF;
    INSERT INTO public.company_config (company_id, config)
    SELECT company, jsonb_build_object(
        'company_id', company,
        'subscription_tier', coalesce(s.tier, 'free'),
        'max_users', coalesce(s.limits, t.limits) -> 'max_users',
        'billing_email', c.billing_email,
        'features_enabled', coalesce(s.limits, t.limits) -> 'features_enabled',
        'support_level', t.support_level)
    FROM public.companies AS c
    LEFT JOIN public.subscriptions AS s ON s.company_id = c.company_id
    -- A tier that is not in the catalogue has what free has.
    CROSS JOIN LATERAL (
        SELECT limits, support_level FROM public.subscription_tiers
        WHERE tier IN (coalesce(s.tier, 'free'), 'free') ORDER BY tier = coalesce(s.tier, 'free') DESC LIMIT 1) AS t
    WHERE c.company_id = company
    ON CONFLICT ON CONSTRAINT company_config_pkey DO NOTHING;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Removes the schema of a company with all that is in it, and its role. Without them it does nothing.
CREATE FUNCTION public.drop_company_schema(company_id text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant  text := public.tenant_schema_name(company_id);
    company text := company_id;
BEGIN
    PERFORM public.lock_company(company);
    IF to_regnamespace(quote_ident(tenant)) IS NOT NULL THEN
        EXECUTE format('DROP SCHEMA %I CASCADE', tenant);
    END IF;
    DELETE FROM public.tenant_schema_versions AS v WHERE v.company_id = company;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = tenant) THEN
        BEGIN
            EXECUTE format('DROP ROLE %I', tenant);
        EXCEPTION WHEN dependent_objects_still_exist THEN
            RAISE NOTICE 'role % stays: it has rights elsewhere', quote_ident(tenant);
        WHEN undefined_object THEN
            NULL; -- removed for another database of the server, just now
        END;
    END IF;
END $$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION public.tenant_schema_name(text), public.lock_company(text), public.tenant_schema_version(text),
    public.grant_company_schema(text), public.migrate_company_schema(text, bigint), public.create_company_tables(text),
    public.create_company_schema(text), public.initialize_company_config(text, text), public.drop_company_schema(text) FROM PUBLIC;

COMMENT ON FUNCTION public.tenant_schema_name(text) IS 'The name of the schema and of the role of a company.';
COMMENT ON FUNCTION public.lock_company(text) IS 'Makes all others who change the company wait until the transaction ends.';
COMMENT ON FUNCTION public.tenant_schema_version(text) IS 'The version of a company''s tables; 0: it has none.';
COMMENT ON FUNCTION public.grant_company_schema(text) IS 'Gives the roles their rights in the schema of a company.';
COMMENT ON FUNCTION public.migrate_company_schema(text, bigint) IS
    'Brings a company''s tables to a version, or the newest, and returns the version there is then.';
COMMENT ON FUNCTION public.create_company_tables(text) IS 'Makes the tables in the schema of a company, or brings them to the newest version.';
COMMENT ON FUNCTION public.create_company_schema(text) IS 'Makes schema, role and tables of a company, as far as they are missing.';
COMMENT ON FUNCTION public.initialize_company_config(text, text) IS 'Writes the configuration of a company if it has none.';
COMMENT ON FUNCTION public.drop_company_schema(text) IS 'Removes the schema of a company with all its data, and its role.';
