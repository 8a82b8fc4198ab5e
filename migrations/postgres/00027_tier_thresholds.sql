-- +goose Up

-- The default is for a version before this one, which does not name the column when it writes the catalogue.
ALTER TABLE public.subscription_tiers
    ADD COLUMN thresholds integer[] NOT NULL DEFAULT '{80,100}'
        CHECK (cardinality(thresholds) <= 20 AND 1 <= ALL (thresholds) AND 1000 >= ALL (thresholds));
COMMENT ON COLUMN public.subscription_tiers.thresholds IS
    'Percentages of daily_api_calls at which an event is published, ascending. Not copied into subscriptions.';
