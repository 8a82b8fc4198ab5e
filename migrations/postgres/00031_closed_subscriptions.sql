-- +goose Up

-- A subscription ends with its company where subscription.events says so, which may be later than the company itself.
ALTER TABLE public.subscriptions ADD COLUMN closed_at timestamptz
    CHECK (closed_at >= '0001-01-01 00:00+00' AND closed_at < '10000-01-01 00:00+00');
COMMENT ON COLUMN public.subscriptions.closed_at IS
    'When it ended with its company: no event of subscription.events changes it any more. Null: it has not.';
ALTER TABLE public.subscriptions ADD COLUMN closed_in integer[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN public.subscriptions.closed_in IS
    'The partitions that its end was read in, where no other event was read before. Empty: it ended for the events of all.';
ALTER TABLE public.subscriptions ADD COLUMN closing_at timestamptz
    CHECK (closing_at >= '0001-01-01 00:00+00' AND closing_at < '10000-01-01 00:00+00');
COMMENT ON COLUMN public.subscriptions.closing_at IS 'When its company was closed; its end is on its way until closed_at is set.';
CREATE INDEX subscriptions_closing ON public.subscriptions (event_partition, closing_at) WHERE closing_at IS NOT NULL AND closed_at IS NULL;
UPDATE public.subscriptions AS s SET closed_at = coalesce(c.closed_at, clock_timestamp())
FROM public.companies AS c WHERE c.company_id = s.company_id AND c.status = 'closed';
