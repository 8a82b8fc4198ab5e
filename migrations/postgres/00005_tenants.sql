-- +goose Up

ALTER TABLE public.companies
    DROP CONSTRAINT companies_status_check,
    ADD CONSTRAINT companies_status_check CHECK (status IN ('active', 'closed', 'purged')),
    ADD COLUMN closed_at timestamptz CHECK (closed_at >= '0001-01-01 00:00+00' AND closed_at < '10000-01-01 00:00+00');
COMMENT ON TABLE public.companies IS
    'The customers. A company that is closed stays, with status closed; purged: nothing but its records for the books is left.';
COMMENT ON COLUMN public.companies.closed_at IS 'When it was closed; null: it was not, or by hand.';

ALTER TABLE public.subscriptions
    ADD COLUMN benefits             jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(benefits) = 'object'),
    ADD COLUMN grace_until          timestamptz CHECK (grace_until >= '0001-01-01 00:00+00' AND grace_until < '10000-01-01 00:00+00'),
    ADD COLUMN cancel_at_period_end boolean     NOT NULL DEFAULT false,
    ADD COLUMN previous_tier        text        COLLATE "C" CHECK (previous_tier ~ '^[a-z0-9_-]{1,20}$'),
    ADD COLUMN anchor_day           smallint    CHECK (anchor_day BETWEEN 1 AND 31),
    ADD COLUMN event_partition      integer     CHECK (event_partition >= 0),
    ADD COLUMN due_at               timestamptz GENERATED ALWAYS AS (CASE
        WHEN status IN ('cancelled', 'expired') THEN NULL
        WHEN pending_tier IS NOT NULL THEN period_end
        WHEN status = 'past_due' THEN grace_until
        WHEN price_minor > 0 THEN period_end END) STORED;
CREATE INDEX subscriptions_by_due_time ON public.subscriptions (event_partition, due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN public.subscriptions.benefits IS 'What else the tier gives, copied from the catalogue with the limits.';
COMMENT ON COLUMN public.subscriptions.grace_until IS 'When a subscription that is past_due expires.';
COMMENT ON COLUMN public.subscriptions.cancel_at_period_end IS 'The pending tier is the end of a cancellation, not of a downgrade.';
COMMENT ON COLUMN public.subscriptions.previous_tier IS 'The tier that an expiry has ended; null: none has.';
COMMENT ON COLUMN public.subscriptions.anchor_day IS
    'The day of the month on which periods begin, the last one in a shorter month; null: that of period_start.';
COMMENT ON COLUMN public.subscriptions.event_partition IS
    'The partition of subscription.events whose owner acts when the subscription is due; null: set by hand, nobody does.';
COMMENT ON COLUMN public.subscriptions.due_at IS 'When a pending tier, an expiry or the end of the grace is due; null: nothing will be.';

CREATE TABLE public.company_heads (
    company_id     text        COLLATE "C" PRIMARY KEY REFERENCES public.companies,
    last_effect_at timestamptz NOT NULL,
    audit_seq      bigint      NOT NULL CHECK (audit_seq >= 0),
    audit_hash     text        COLLATE "C" NOT NULL
) WITH (fillfactor = 70); -- written with every event: room for the next version in the same page
COMMENT ON TABLE public.company_heads IS
    'How far a company has come: its last event and the end of its audit chain. Nothing that is cached depends on it.';
COMMENT ON COLUMN public.company_heads.last_effect_at IS 'The time of the last effect. No later one has an earlier time.';
COMMENT ON COLUMN public.company_heads.audit_seq IS 'seq of the last row of the company in audit_log; 0: there is none.';
COMMENT ON COLUMN public.company_heads.audit_hash IS 'hash of that row.';

CREATE TABLE public.tenant_migrations (
    version  bigint PRIMARY KEY CHECK (version > 0),
    name     text   NOT NULL,
    up_sql   text   NOT NULL,
    checksum text   NOT NULL
);
COMMENT ON TABLE public.tenant_migrations IS
    'The versions of the tables of a company. Written by "tenantflow migrate"; a version never changes.';
COMMENT ON COLUMN public.tenant_migrations.up_sql IS 'Run with a search path that holds the company''s schema alone.';
COMMENT ON COLUMN public.tenant_migrations.checksum IS 'SHA-256 of up_sql, in hexadecimal digits.';

CREATE TABLE public.tenant_schema_versions (
    company_id  text        COLLATE "C" NOT NULL,
    schema_name text        COLLATE "C" NOT NULL,
    version     bigint      NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (company_id, version)
);
COMMENT ON TABLE public.tenant_schema_versions IS 'Which versions were applied to the schema of a company.';

-- +goose StatementBegin
-- The role is the server's and not this database's: another database may have made it, also just now. A session that has
-- found no such role may go on believing that until it hears of the other's commit, although CREATE ROLE is told that
-- there is one. So it goes on only when it finds the role by the same way as GRANT does. Every turn hears the news.
DO $$
BEGIN
    WHILE to_regrole('database_service_role') IS NULL LOOP
        BEGIN
            CREATE ROLE database_service_role NOLOGIN;
            COMMENT ON ROLE database_service_role IS 'What services that keep trading data may do, in the schema of every company.';
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END $$;
-- +goose StatementEnd
GRANT USAGE ON SCHEMA public TO database_service_role;

-- +goose StatementBegin
-- Who can make no object can plant none: no function, operator or table in the way of somebody else's.
DO $$
BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
END $$;
-- +goose StatementEnd
