-- +goose Up

-- A subscription says when something is due: every time at which something is scheduled has a column, and due_at is the
-- first of them. What is scheduled is decided by the service alone.
ALTER TABLE public.subscriptions DROP COLUMN due_at;
ALTER TABLE public.subscriptions
    ADD COLUMN period_months     smallint    NOT NULL DEFAULT 1 CHECK (period_months BETWEEN 1 AND 36),
    ADD COLUMN pending_at        timestamptz CHECK (pending_at >= '0001-01-01 00:00+00' AND pending_at < '10000-01-01 00:00+00'),
    ADD COLUMN renewal_until     timestamptz CHECK (renewal_until >= '0001-01-01 00:00+00' AND renewal_until < '10000-01-01 00:00+00'),
    ADD COLUMN next_period_start timestamptz CHECK (next_period_start >= '0001-01-01 00:00+00' AND next_period_start < '10000-01-01 00:00+00'),
    ADD COLUMN next_period_end   timestamptz CHECK (next_period_end >= '0001-01-01 00:00+00' AND next_period_end < '10000-01-01 00:00+00'),
    ADD COLUMN next_renewal      jsonb       CHECK (jsonb_typeof(next_renewal) = 'object'),
    ADD COLUMN payment_failed    boolean     NOT NULL DEFAULT false,
    ADD COLUMN expired_term      jsonb       CHECK (jsonb_typeof(expired_term) = 'object'),
    ADD CONSTRAINT subscriptions_next_period CHECK (num_nulls(next_period_start, next_period_end, next_renewal) IN (0, 3)
        AND next_period_end > next_period_start);
COMMENT ON COLUMN public.subscriptions.price_minor IS
    'Price of a month in minor units of the currency, copied from the catalogue when the period started or the tier changed.';
COMMENT ON COLUMN public.subscriptions.period_months IS 'How many months the period has: it costs price_minor times as much.';
COMMENT ON COLUMN public.subscriptions.pending_at IS 'When the pending tier is due: the end of the last recorded period.';
COMMENT ON COLUMN public.subscriptions.renewal_until IS 'When a paid period expires that was not renewed; null: it has no price, or is past_due.';
COMMENT ON COLUMN public.subscriptions.next_period_start IS 'The start of the period that was recorded ahead; null: none was. It is due then.';
COMMENT ON COLUMN public.subscriptions.next_period_end IS 'Its end.';
COMMENT ON COLUMN public.subscriptions.next_renewal IS 'Its months, the payment it names, and the event that recorded it.';
COMMENT ON COLUMN public.subscriptions.payment_failed IS 'A payment of the period has failed, and not all of it has come since.';
COMMENT ON COLUMN public.subscriptions.expired_term IS 'The tier and period that an expiry has ended, as a renewal would bring them back; null: none.';

-- +goose StatementBegin
-- Copies price and limits from the catalogue where the writer gives none, and when it changes the tier and nothing of
-- them: then they are the old tier's. A tier that is not in the catalogue gets what free has. Sets the times of what is scheduled where
-- they are not given: of rows that are written by hand.
CREATE OR REPLACE FUNCTION public.copy_tier() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry public.subscription_tiers;
    other boolean := TG_OP = 'UPDATE' AND NEW.tier IS DISTINCT FROM OLD.tier;
    moved boolean := TG_OP = 'UPDATE' AND NEW.period_end IS DISTINCT FROM OLD.period_end;
BEGIN
    IF NEW.limits IS NULL OR NEW.price_minor IS NULL
        OR other AND (NEW.limits = OLD.limits OR NEW.price_minor = OLD.price_minor) THEN
        SELECT * INTO entry FROM public.subscription_tiers AS t
        WHERE t.tier IN (NEW.tier, 'free') ORDER BY t.tier = NEW.tier DESC LIMIT 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'no tier % and no free tier in subscription_tiers', NEW.tier
                USING ERRCODE = 'foreign_key_violation', HINT = 'Run "tenantflow migrate": it writes the catalogue of tiers.';
        END IF;
        IF NEW.limits IS NULL OR other AND NEW.limits = OLD.limits THEN
            NEW.limits := entry.limits;
        END IF;
        IF NEW.price_minor IS NULL OR other AND NEW.price_minor = OLD.price_minor THEN
            NEW.price_minor := entry.price_minor;
        END IF;
    END IF;
    IF NEW.period_end IS NULL THEN
        NEW.period_end := (NEW.period_start AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
    END IF;
    IF NEW.pending_tier IS NULL OR NEW.status IN ('cancelled', 'expired') THEN
        NEW.pending_at := NULL;
    ELSIF NEW.pending_at IS NULL OR moved AND NEW.pending_at = OLD.pending_at THEN
        NEW.pending_at := NEW.period_end;
    END IF;
    IF NEW.status <> 'active' OR NEW.price_minor = 0 THEN
        NEW.renewal_until := NULL;
    ELSIF NEW.renewal_until IS NULL OR moved AND NEW.renewal_until = OLD.renewal_until THEN
        NEW.renewal_until := NEW.period_end + interval '72 hours';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd

-- What was recorded before this version: periods had one price, and a payment belonged to a period by its transaction.
ALTER TABLE public.payments ADD COLUMN period_start timestamptz
    CHECK (period_start >= '0001-01-01 00:00+00' AND period_start < '10000-01-01 00:00+00');
COMMENT ON COLUMN public.payments.period_start IS 'The start of the period that it belongs to; null: to none yet.';
UPDATE public.payments AS p SET period_start = t.period_start FROM public.billing_transactions AS t WHERE t.transaction_id = p.transaction_id;
CREATE INDEX billing_transactions_by_period ON public.billing_transactions (company_id, period_start);
UPDATE public.subscriptions AS s SET expired_term = jsonb_build_object('tier', t.new_tier, 'period_start', t.period_start, 'period_end', t.period_end,
        'months', 1, 'price_minor', c.price_minor, 'anchor_day', extract(day FROM t.period_start AT TIME ZONE 'UTC'), 'limits', c.limits, 'benefits', c.benefits)
    FROM public.subscription_tiers AS c, (
        SELECT DISTINCT ON (company_id, new_tier) company_id, new_tier, period_start, period_end FROM public.billing_transactions
        WHERE period_start IS NOT NULL ORDER BY company_id, new_tier, created_at DESC) AS t
    WHERE s.status = 'expired' AND c.tier = s.previous_tier AND t.company_id = s.company_id AND t.new_tier = s.previous_tier;
-- The others pass through the trigger once, for the times of what is scheduled.
UPDATE public.subscriptions SET period_months = 1 WHERE price_minor > 0 OR pending_tier IS NOT NULL;

ALTER TABLE public.subscriptions ADD COLUMN due_at timestamptz GENERATED ALWAYS AS (least(pending_at, next_period_start,
    CASE WHEN status = 'past_due' THEN grace_until END, renewal_until)) STORED;
CREATE INDEX subscriptions_by_due_time ON public.subscriptions (event_partition, due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN public.subscriptions.due_at IS 'When the first thing that is scheduled is due; null: nothing is.';

-- +goose StatementBegin
-- What the paid period of a subscription has cost and brought in: the present one, or the one that an expiry has ended. What the books
-- have no row of, because it was written by hand, has cost its price.
CREATE FUNCTION public.period_books(s public.subscriptions, OUT charged bigint, OUT tiers text[], OUT received bigint) LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(t.charged, p.price), coalesce(t.tiers, '{}'), coalesce((
            SELECT sum(m.amount_minor)::bigint FROM public.payments AS m
            WHERE m.company_id = s.company_id AND m.period_start = p.starts AND m.status = 'received'), 0)
    FROM (SELECT coalesce((s.expired_term ->> 'period_start')::timestamptz, s.period_start) AS starts,
            coalesce((s.expired_term ->> 'period_end')::timestamptz, s.period_end) AS ends,
            coalesce((s.expired_term ->> 'price_minor')::bigint * (s.expired_term ->> 'months')::integer, s.price_minor * s.period_months) AS price) AS p
    CROSS JOIN LATERAL (
        SELECT sum(b.amount_minor)::bigint AS charged, array_agg(b.new_tier) FILTER (WHERE b.amount_minor > 0) AS tiers
        FROM public.billing_transactions AS b
        WHERE b.company_id = s.company_id AND b.period_start = p.starts AND b.period_end = p.ends) AS t;
$$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION public.period_books(public.subscriptions) FROM PUBLIC;
COMMENT ON FUNCTION public.period_books(public.subscriptions) IS 'What the paid period of a subscription has cost and brought in.';

ALTER TABLE public.company_heads
    ADD COLUMN subscription_effect_at timestamptz,
    ADD COLUMN company_effect_at      timestamptz;
UPDATE public.company_heads SET subscription_effect_at = last_effect_at, company_effect_at = last_effect_at;
COMMENT ON COLUMN public.company_heads.last_effect_at IS 'The time of the last effect of either topic.';
COMMENT ON COLUMN public.company_heads.subscription_effect_at IS 'The time of the last effect of subscription.events. No later one has an earlier time.';
COMMENT ON COLUMN public.company_heads.company_effect_at IS 'The same of company.events.';

CREATE TABLE public.due_events (
    company_id   text        COLLATE "C" NOT NULL REFERENCES public.companies ON DELETE CASCADE,
    topic        text        COLLATE "C" NOT NULL,
    event_id     text        COLLATE "C" NOT NULL,
    due_at       timestamptz NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (company_id, topic)
);
COMMENT ON TABLE public.due_events IS
    'The last event by which something due was published, per company and topic. Without effect it is published again after a while.';
