-- +goose Up

-- A limit that a tier may have: how many data points a user may reserve in a UTC day. Where it is not, there is no such limit.
ALTER TABLE public.limit_overrides DROP CONSTRAINT limit_overrides_limit_name_check;
ALTER TABLE public.limit_overrides ADD CONSTRAINT limit_overrides_limit_name_check
    CHECK (limit_name IN ('daily_api_calls', 'daily_data_points', 'max_users', 'retention_days', 'storage_mb'));

-- +goose StatementBegin
-- Whether a document holds all limits in the form in which they are read: each a number or "unlimited", but for the retention, which is a
-- number; the features a list of names. daily_data_points need not be there. Limits may be written by hand, and one row that can't be
-- read must not stop the service.
CREATE OR REPLACE FUNCTION public.limits_are_complete(limits jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(
        jsonb_typeof(limits) = 'object'
        AND (SELECT bool_and(coalesce(limits -> name = '"unlimited"'
                OR jsonb_typeof(limits -> name) = 'number' AND limits ->> name ~ '^[0-9]{1,18}$', name = 'daily_data_points' AND NOT limits ? name))
            FROM unnest(ARRAY['daily_api_calls', 'daily_data_points', 'storage_mb', 'max_users']) AS name)
        AND jsonb_typeof(limits -> 'retention_days') = 'number' AND limits ->> 'retention_days' ~ '^[0-9]{1,6}$'
        AND jsonb_typeof(limits -> 'features_enabled') = 'array'
        AND NOT jsonb_path_exists(limits, 'strict $.features_enabled[*] ? (@.type() != "string")'), false)
$$;
-- +goose StatementEnd
COMMENT ON COLUMN public.subscription_tiers.limits IS
    'daily_api_calls, storage_mb, max_users (a number or "unlimited"), daily_data_points (likewise, or not there: unlimited), retention_days, features_enabled.';
