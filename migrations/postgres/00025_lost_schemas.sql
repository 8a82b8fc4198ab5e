-- +goose Up

-- +goose StatementBegin
-- Reports whether a company has a schema. One made by hand may have none. One that had a schema, by tenant_schema_versions, and has
-- lost it is an error (3F000) that names the schema: an event must not go on as if there were no users.
CREATE FUNCTION public.has_company_schema(company_id text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant text := public.tenant_schema_name(company_id);
BEGIN
    IF to_regnamespace(quote_ident(tenant)) IS NOT NULL THEN
        RETURN true;
    END IF;
    IF public.tenant_schema_version(company_id) > 0 THEN
        RAISE EXCEPTION 'schema "%" does not exist', tenant
            USING ERRCODE = 'invalid_schema_name', SCHEMA = tenant, HINT = 'Restore the schema, or remove the company''s rows of public.tenant_schema_versions if it is to have none.';
    END IF;
    RETURN false;
END $$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION public.has_company_schema(text) FROM PUBLIC;
COMMENT ON FUNCTION public.has_company_schema(text) IS 'Whether a company has a schema; an error where it had one and has lost it.';

-- +goose StatementBegin
-- The functions that write the users of a company ask it. Everything else in them stays, so only their one condition is replaced.
DO $$
DECLARE
    asked   CONSTANT text := 'to_regnamespace(quote_ident(tenant)) IS NULL';
    asks    CONSTANT text := 'NOT public.has_company_schema(company)';
    changed text;
    f       regprocedure;
BEGIN
    FOREACH f IN ARRAY ARRAY['public.tenant_user_put(text,text,text,timestamptz)', 'public.tenant_user_remove(text,text,timestamptz)',
            'public.seat_users(text,text,timestamptz,timestamptz,jsonb,bigint,timestamptz)']::regprocedure[] LOOP
        changed := replace(pg_get_functiondef(f), asked, asks);
        IF changed = pg_get_functiondef(f) THEN
            RAISE EXCEPTION 'function % does not ask for the schema', f;
        END IF;
        EXECUTE changed;
    END LOOP;
END $$;
-- +goose StatementEnd
