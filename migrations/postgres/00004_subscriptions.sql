-- +goose Up

CREATE TABLE public.subscriptions (
    company_id   text        COLLATE "C" PRIMARY KEY REFERENCES public.companies,
    -- No reference to subscription_tiers: a tier may leave the catalogue while companies still have it.
    tier         text        COLLATE "C" NOT NULL DEFAULT 'free' CHECK (tier ~ '^[a-z0-9_-]{1,20}$'),
    status       text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'past_due', 'cancelled', 'expired')),
    period_start timestamptz NOT NULL DEFAULT now(),
    period_end   timestamptz NOT NULL,
    price_minor  bigint      NOT NULL CHECK (price_minor >= 0),
    currency     text        NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
    pending_tier text        COLLATE "C" CHECK (pending_tier ~ '^[a-z0-9_-]{1,20}$'),
    limits       jsonb       NOT NULL CHECK (public.limits_are_complete(limits)),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    version      bigint      NOT NULL,
    CHECK (period_end > period_start),
    CHECK (least(period_start, created_at, updated_at) >= '0001-01-01 00:00+00'
        AND greatest(period_end, created_at, updated_at) < '10000-01-01 00:00+00')
);
COMMENT ON TABLE public.subscriptions IS 'The one subscription of a company. A company without a row here has none.';
COMMENT ON COLUMN public.subscriptions.price_minor IS
    'Price of the period in minor units of the currency, copied from the catalogue when the period started.';
COMMENT ON COLUMN public.subscriptions.limits IS
    'The limits that hold, copied from the catalogue when the period started or the tier changed. Form: as in subscription_tiers.';
COMMENT ON COLUMN public.subscriptions.pending_tier IS 'The tier to change to when the period ends; null: it stays.';

-- +goose StatementBegin
-- Copies price and limits from the catalogue where the writer gives none, and when it changes the tier and nothing of
-- them: then they are the old tier's. A tier that is not in the catalogue gets what free has.
CREATE FUNCTION public.copy_tier() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry public.subscription_tiers;
    other boolean := TG_OP = 'UPDATE' AND NEW.tier IS DISTINCT FROM OLD.tier;
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
    RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TRIGGER tier BEFORE INSERT OR UPDATE ON public.subscriptions
    FOR EACH ROW EXECUTE FUNCTION public.copy_tier();
CREATE TRIGGER version BEFORE INSERT OR UPDATE ON public.subscriptions
    FOR EACH ROW EXECUTE FUNCTION public.set_version();
CREATE TRIGGER change AFTER INSERT OR UPDATE OR DELETE ON public.subscriptions
    FOR EACH ROW EXECUTE FUNCTION public.tell_change();
CREATE TRIGGER truncation BEFORE TRUNCATE ON public.subscriptions
    FOR EACH STATEMENT EXECUTE FUNCTION public.tell_truncate();
