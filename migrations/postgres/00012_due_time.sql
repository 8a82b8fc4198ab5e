-- +goose Up

-- A time of grace that is over ends a subscription also when a change waits for the end of its period.
ALTER TABLE public.subscriptions DROP COLUMN due_at;
ALTER TABLE public.subscriptions ADD COLUMN due_at timestamptz GENERATED ALWAYS AS (CASE
    WHEN status IN ('cancelled', 'expired') THEN NULL
    WHEN status = 'past_due' AND pending_tier IS NOT NULL THEN least(grace_until, period_end)
    WHEN status = 'past_due' THEN grace_until
    WHEN pending_tier IS NOT NULL OR price_minor > 0 THEN period_end END) STORED;
CREATE INDEX subscriptions_by_due_time ON public.subscriptions (event_partition, due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN public.subscriptions.due_at IS 'When a pending tier, an expiry or the end of the grace is due; null: nothing will be.';

-- A day is one of UTC, wherever the caller is: with his own, the days of a change to daylight saving time are shorter, and
-- positions would be deleted an hour too early.
ALTER FUNCTION public.cleanup_old_data_by_tier(text, integer) SET timezone = 'UTC';
