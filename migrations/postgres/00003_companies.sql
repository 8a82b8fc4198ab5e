-- +goose Up

CREATE TABLE public.companies (
    company_id    text        COLLATE "C" PRIMARY KEY CHECK (company_id ~ '^[A-Za-z0-9_-]{1,50}$'),
    name          text        NOT NULL,
    billing_email text        NOT NULL,
    currency      text        NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
    status        text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'closed')),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    version       bigint      NOT NULL,
    -- What can be written as RFC 3339; infinity can't.
    CHECK (least(created_at, updated_at) >= '0001-01-01 00:00+00' AND greatest(created_at, updated_at) < '10000-01-01 00:00+00')
);
COMMENT ON TABLE public.companies IS 'The customers. A company that is closed stays, with status closed.';
COMMENT ON COLUMN public.companies.version IS 'Set by a trigger, from change_seq, whenever the row is written.';

CREATE TABLE public.company_config (
    company_id text        COLLATE "C" PRIMARY KEY REFERENCES public.companies,
    config     jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(config) = 'object'),
    updated_at timestamptz NOT NULL DEFAULT now(),
    version    bigint      NOT NULL
);
COMMENT ON TABLE public.company_config IS
    'What a company has set for itself. What its tier decides (max_users, features_enabled, ...) is not read from here.';

CREATE TABLE public.user_directory (
    user_id                 text        COLLATE "C" PRIMARY KEY CHECK (user_id ~ '^[A-Za-z0-9_-]{1,50}$'),
    company_id              text        COLLATE "C" NOT NULL REFERENCES public.companies,
    email                   text        NOT NULL DEFAULT '',
    subscription_status     text        NOT NULL DEFAULT 'active' CHECK (subscription_status IN ('active', 'suspended')),
    subscription_start_date timestamptz,
    subscription_end_date   timestamptz,
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    last_activity           timestamptz,
    version                 bigint      NOT NULL,
    CHECK (least(subscription_start_date, subscription_end_date, created_at, updated_at, last_activity) >= '0001-01-01 00:00+00'
        AND greatest(subscription_start_date, subscription_end_date, created_at, updated_at, last_activity) < '10000-01-01 00:00+00')
);
CREATE INDEX user_directory_by_company ON public.user_directory (company_id);
COMMENT ON TABLE public.user_directory IS 'Which company a user belongs to. A user_id is unique over all companies.';
COMMENT ON COLUMN public.user_directory.subscription_status IS
    'suspended: beyond the max_users of the company''s tier. The status of the subscription itself is in subscriptions.';

CREATE TRIGGER version BEFORE INSERT OR UPDATE ON public.companies
    FOR EACH ROW EXECUTE FUNCTION public.set_version();
CREATE TRIGGER change AFTER INSERT OR UPDATE OR DELETE ON public.companies
    FOR EACH ROW EXECUTE FUNCTION public.tell_change();
CREATE TRIGGER truncation BEFORE TRUNCATE ON public.companies
    FOR EACH STATEMENT EXECUTE FUNCTION public.tell_truncate();

CREATE TRIGGER version BEFORE INSERT OR UPDATE ON public.company_config
    FOR EACH ROW EXECUTE FUNCTION public.set_version();
CREATE TRIGGER change AFTER INSERT OR UPDATE OR DELETE ON public.company_config
    FOR EACH ROW EXECUTE FUNCTION public.tell_change();
CREATE TRIGGER truncation BEFORE TRUNCATE ON public.company_config
    FOR EACH STATEMENT EXECUTE FUNCTION public.tell_truncate();

-- +goose StatementBegin
-- Whether an update of a user does no more than move last_activity on. That is written all the time, and nothing is
-- decided by it: no copy becomes old by it, and no company is locked for it.
CREATE FUNCTION public.is_activity_only(before public.user_directory, after public.user_directory)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT before.last_activity IS DISTINCT FROM after.last_activity
        AND to_jsonb(before) - '{last_activity,updated_at,version}'::text[] = to_jsonb(after) - '{last_activity,updated_at,version}'::text[]
$$;
-- +goose StatementEnd

CREATE TRIGGER version_of_new BEFORE INSERT ON public.user_directory
    FOR EACH ROW EXECUTE FUNCTION public.set_version();
CREATE TRIGGER version BEFORE UPDATE ON public.user_directory
    FOR EACH ROW WHEN (NOT public.is_activity_only(OLD, NEW)) EXECUTE FUNCTION public.set_version();
CREATE TRIGGER change_of_members AFTER INSERT OR DELETE ON public.user_directory
    FOR EACH ROW EXECUTE FUNCTION public.tell_change();
CREATE TRIGGER change AFTER UPDATE ON public.user_directory
    FOR EACH ROW WHEN (NOT public.is_activity_only(OLD, NEW)) EXECUTE FUNCTION public.tell_change();
CREATE TRIGGER truncation BEFORE TRUNCATE ON public.user_directory
    FOR EACH STATEMENT EXECUTE FUNCTION public.tell_truncate();
