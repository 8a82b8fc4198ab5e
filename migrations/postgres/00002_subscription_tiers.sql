-- +goose Up

-- +goose StatementBegin
-- Whether a document holds all limits in the form in which they are read: a number or "unlimited", the retention a
-- number, the features a list of names. Somebody may write them by hand, and one row that can't be read must not stop
-- the service.
CREATE FUNCTION public.limits_are_complete(limits jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(
        jsonb_typeof(limits) = 'object'
        AND (SELECT bool_and(coalesce(limits -> name = '"unlimited"'
                OR jsonb_typeof(limits -> name) = 'number' AND limits ->> name ~ '^[0-9]{1,18}$', false))
            FROM unnest(ARRAY['daily_api_calls', 'storage_mb', 'max_users']) AS name)
        AND jsonb_typeof(limits -> 'retention_days') = 'number' AND limits ->> 'retention_days' ~ '^[0-9]{1,6}$'
        AND jsonb_typeof(limits -> 'features_enabled') = 'array'
        AND NOT jsonb_path_exists(limits, 'strict $.features_enabled[*] ? (@.type() != "string")'), false)
$$;
-- +goose StatementEnd

CREATE TABLE public.subscription_tiers (
    tier              text        COLLATE "C" PRIMARY KEY CHECK (tier ~ '^[a-z0-9_-]{1,20}$'),
    catalogue_order   integer     NOT NULL,
    price_minor       bigint      NOT NULL CHECK (price_minor >= 0),
    currency          text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    limits            jsonb       NOT NULL CHECK (public.limits_are_complete(limits)),
    benefits          jsonb       NOT NULL,
    support_level     text        NOT NULL,
    backup_every      text        NOT NULL CHECK (backup_every IN ('hourly', 'daily', 'weekly')),
    backup_keep       integer     NOT NULL CHECK (backup_keep > 0),
    statement_timeout interval    NOT NULL CHECK (statement_timeout > interval '0'),
    p95_target        interval    NOT NULL CHECK (p95_target > interval '0'),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE public.subscription_tiers IS
    'The catalogue of tiers. "tenantflow migrate" makes it equal to the configured one: changes made here do not last.';
COMMENT ON COLUMN public.subscription_tiers.catalogue_order IS 'Place in the catalogue, from 0.';
COMMENT ON COLUMN public.subscription_tiers.price_minor IS 'Price of a month in minor units of the currency.';
COMMENT ON COLUMN public.subscription_tiers.limits IS
    'daily_api_calls, storage_mb, max_users (a number or "unlimited"), retention_days, features_enabled.';
