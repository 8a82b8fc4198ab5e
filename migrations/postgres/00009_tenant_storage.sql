-- +goose Up

-- +goose StatementBegin
-- The bytes that the schema of a company takes: tables, indexes, what is stored out of line, sequences. 0: it has none.
CREATE FUNCTION public.tenant_size(company_id text) RETURNS bigint LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(pg_total_relation_size(d.objid)), 0)::bigint -- of a table: with its indexes and its toast
    -- By pg_depend, in which tables and sequences are known by their schema: pg_class has no index by schema, and is long
    -- where there are thousands of companies.
    FROM pg_depend AS d
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.classid = 'pg_class'::regclass
        AND d.refobjid = to_regnamespace(quote_ident(public.tenant_schema_name(company_id)));
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Whether data_size_mb more (of 1,048,576 bytes) fit into what the subscription of a company allows. A company that is
-- closed or not known and one without a subscription may store nothing.
CREATE FUNCTION public.check_storage_quota(company_id text, data_size_mb numeric) RETURNS boolean LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    company text := company_id;
    allowed text; -- a number or unlimited
BEGIN
    PERFORM public.tenant_schema_name(company); -- is it an id?
    IF data_size_mb IS NULL OR NOT data_size_mb BETWEEN 0 AND 1e15 THEN
        RAISE EXCEPTION 'not a size in megabytes: %', coalesce(data_size_mb::text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT s.limits ->> 'storage_mb' INTO allowed
    FROM public.subscriptions AS s JOIN public.companies AS c USING (company_id)
    WHERE s.company_id = company AND c.status = 'active';
    IF allowed IS NULL THEN
        RETURN false;
    ELSIF allowed = 'unlimited' THEN
        RETURN true;
    END IF;
    RETURN public.tenant_size(company) + data_size_mb * 1048576 <= allowed::numeric * 1048576;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Deletes the positions of a company that were closed longer ago than its subscription keeps them, oldest first and at
-- most max_rows (null: all of them), and logs that it did. Returns how many. Without a subscription it deletes nothing.
CREATE FUNCTION public.cleanup_old_data_by_tier(company_id text, max_rows integer DEFAULT NULL) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant  text := public.tenant_schema_name(company_id);
    company text := company_id;
    days    integer;
    deleted integer := 0;
BEGIN
    IF max_rows < 0 THEN
        RAISE EXCEPTION 'max_rows % is negative', max_rows USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM public.lock_company(company);
    -- Locked: a tier that changes at the same time, also by hand, is either seen here or comes when all is deleted.
    SELECT (s.limits ->> 'retention_days')::integer INTO days FROM public.subscriptions AS s
    WHERE s.company_id = company FOR SHARE;
    IF days IS NOT NULL AND to_regclass(format('%I.trading_positions', tenant)) IS NOT NULL THEN
        EXECUTE format($delete$
            DELETE FROM %1$I.trading_positions WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM %1$I.trading_positions
                WHERE closed_at < now() - make_interval(days => $1) AND status <> 'open'
                ORDER BY closed_at LIMIT $2 FOR UPDATE SKIP LOCKED))
            $delete$, tenant) USING days, max_rows;
        GET DIAGNOSTICS deleted = ROW_COUNT;
    END IF;
    INSERT INTO public.data_cleanup_log (company_id, retention_days, deleted_rows) VALUES (company, days, deleted);
    RETURN deleted;
END $$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION public.tenant_size(text), public.check_storage_quota(text, numeric),
    public.cleanup_old_data_by_tier(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.check_storage_quota(text, numeric) TO database_service_role;

COMMENT ON FUNCTION public.tenant_size(text) IS 'The bytes that the schema of a company takes.';
COMMENT ON FUNCTION public.check_storage_quota(text, numeric) IS 'Whether so many megabytes more fit into what the company''s subscription allows.';
COMMENT ON FUNCTION public.cleanup_old_data_by_tier(text, integer) IS
    'Deletes positions that were closed longer ago than the company''s subscription keeps them; returns how many.';
