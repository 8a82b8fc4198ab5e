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

-- +goose StatementBegin
-- What can be measured of the schema of a company: the bytes it takes, and whether it holds a position that was closed more than
-- retention_days ago. The latter is null without retention_days. Both are null where there is no schema with the tables of a company, or where another session has
-- locked it: one company's trouble must not keep the others from being measured. It shares nothing with what deletes positions.
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
EXCEPTION WHEN lock_not_available OR insufficient_privilege OR undefined_table OR undefined_column THEN
    bytes := NULL;
    overdue := NULL;
END $$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION public.measure_company(text, integer) FROM PUBLIC;
COMMENT ON FUNCTION public.measure_company(text, integer) IS
    'The bytes of a company''s schema, and whether it holds positions that were closed longer ago than so many days. Null: it can''t be measured.';
