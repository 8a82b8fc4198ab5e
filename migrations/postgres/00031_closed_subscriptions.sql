-- +goose Up

-- A subscription ends with its company where subscription.events says so, which may be later than the company itself.
ALTER TABLE public.subscriptions ADD COLUMN closed_at timestamptz
    CHECK (closed_at >= '0001-01-01 00:00+00' AND closed_at < '10000-01-01 00:00+00');
COMMENT ON COLUMN public.subscriptions.closed_at IS
    'When it ended with its company: no event of subscription.events changes it any more. Null: it has not.';
UPDATE public.subscriptions AS s SET closed_at = coalesce(c.closed_at, clock_timestamp())
FROM public.companies AS c WHERE c.company_id = s.company_id AND c.status = 'closed';
