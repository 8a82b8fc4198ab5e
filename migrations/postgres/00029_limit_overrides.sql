-- +goose Up

-- Limits of a company that hold in place of its tier's. subscriptions.limits stays what the tier gave when the period began;
-- subscriptions.effective_limits is what holds, and all who ask for a limit read that. Only the triggers below write it.
CREATE TABLE public.limit_overrides (
    company_id      text        COLLATE "C" NOT NULL REFERENCES public.companies,
    limit_name      text        COLLATE "C" NOT NULL CHECK (limit_name IN ('daily_api_calls', 'max_users', 'retention_days', 'storage_mb')),
    value           jsonb       NOT NULL
        CHECK (value = '"unlimited"' OR jsonb_typeof(value) = 'number' AND value #>> '{}' ~ '^[0-9]{1,18}$'),
    reason          text        NOT NULL,
    set_at          timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    event_partition integer     CHECK (event_partition >= 0),
    PRIMARY KEY (company_id, limit_name),
    CHECK (least(set_at, expires_at) >= '0001-01-01 00:00+00' AND greatest(set_at, expires_at) < '10000-01-01 00:00+00')
);
CREATE INDEX limit_overrides_by_end ON public.limit_overrides (expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON TABLE public.limit_overrides IS
    'Limits of companies that hold in place of their tiers''. A row is one that is in force; what was is in audit_log.';
COMMENT ON COLUMN public.limit_overrides.value IS 'A whole number, or "unlimited".';
COMMENT ON COLUMN public.limit_overrides.reason IS 'Why, in an operator''s words. Removed when the company is purged.';
COMMENT ON COLUMN public.limit_overrides.set_at IS 'The time of the event that set it.';
COMMENT ON COLUMN public.limit_overrides.expires_at IS
    'When it ends; null: another event ends it. It holds until its end is applied, which is soon after, and the row is gone then.';
COMMENT ON COLUMN public.limit_overrides.event_partition IS
    'The partition of company.events whose owner ends it when its time has come; null: set by hand, the first one does.';

ALTER TABLE public.subscriptions ADD COLUMN effective_limits jsonb;
COMMENT ON COLUMN public.subscriptions.limits IS
    'The tier''s limits, copied from the catalogue when the period started or the tier changed. Form: as in subscription_tiers.';
COMMENT ON COLUMN public.subscriptions.effective_limits IS
    'The limits that hold: limits, and limit_overrides in place of them. Set by a trigger. retention_days, too, may be "unlimited".';

-- +goose StatementBegin
-- Sets the limits that hold. After "tier", which may give the row its limits, and before "version": triggers run in the order of their
-- names. Another transaction that changes the overrides at the same time writes this row, too, so the later of both sees both changes.
CREATE FUNCTION public.set_effective_limits() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.effective_limits := NEW.limits || coalesce((
        SELECT jsonb_object_agg(o.limit_name, o.value) FROM public.limit_overrides AS o WHERE o.company_id = NEW.company_id), '{}');
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER tier_with_overrides BEFORE INSERT OR UPDATE ON public.subscriptions
    FOR EACH ROW EXECUTE FUNCTION public.set_effective_limits();

-- Every row passes through the trigger once.
UPDATE public.subscriptions SET version = 0;
ALTER TABLE public.subscriptions ALTER COLUMN effective_limits SET NOT NULL;

-- +goose StatementBegin
-- Has the subscription of a company take over an override that is written or removed. It gets a new version, which tells the change.
CREATE FUNCTION public.apply_overrides() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE public.subscriptions SET version = 0 WHERE effective_limits <> limits;
        RETURN NULL;
    END IF;
    -- A null matches none: there is no OLD or no NEW.
    UPDATE public.subscriptions SET version = 0 WHERE company_id IN (OLD.company_id, NEW.company_id);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER change AFTER INSERT OR DELETE ON public.limit_overrides
    FOR EACH ROW EXECUTE FUNCTION public.apply_overrides();
CREATE TRIGGER change_of_value AFTER UPDATE ON public.limit_overrides
    FOR EACH ROW WHEN ((OLD.company_id, OLD.limit_name, OLD.value) IS DISTINCT FROM (NEW.company_id, NEW.limit_name, NEW.value))
    EXECUTE FUNCTION public.apply_overrides();
CREATE TRIGGER truncation AFTER TRUNCATE ON public.limit_overrides
    FOR EACH STATEMENT EXECUTE FUNCTION public.apply_overrides();
REVOKE EXECUTE ON FUNCTION public.set_effective_limits(), public.apply_overrides() FROM PUBLIC;

-- +goose StatementBegin
-- These functions look at the limits that hold. Everything else in them stays.
DO $$
DECLARE
    changed text;
    f       regprocedure;
BEGIN
    FOREACH f IN ARRAY ARRAY['public.tenant_user_put(text,text,text,timestamptz)', 'public.create_company_schema(text)',
            'public.initialize_company_config(text,text)', 'public.check_storage_quota(text,numeric)']::regprocedure[] LOOP
        changed := regexp_replace(pg_get_functiondef(f), '\y(s|sub)\.limits\y', '\1.effective_limits', 'g');
        IF changed = pg_get_functiondef(f) THEN
            RAISE EXCEPTION 'function % asks for no limits', f;
        END IF;
        EXECUTE changed;
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Deletes the positions of a company that were closed longer ago than its limits keep them, oldest first and at most max_rows (null: all
-- of them), and logs that it did. Returns how many. Without a subscription and where they are kept without limit it deletes nothing. A day
-- is one of UTC, wherever the caller is.
CREATE OR REPLACE FUNCTION public.cleanup_old_data_by_tier(company_id text, max_rows integer DEFAULT NULL) RETURNS integer LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    tenant  text := public.tenant_schema_name(company_id);
    company text := company_id;
    kept    text; -- a number or unlimited
    days    integer;
    deleted integer := 0;
    longest CONSTANT bigint := 365000; -- a thousand years: what is further back than time itself would be an error
BEGIN
    IF max_rows < 0 THEN
        RAISE EXCEPTION 'max_rows % is negative', max_rows USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM public.lock_company(company);
    -- Locked: limits that change at the same time, also by hand, are either seen here or come when all is deleted.
    SELECT s.effective_limits ->> 'retention_days' INTO kept FROM public.subscriptions AS s
    WHERE s.company_id = company FOR SHARE;
    IF kept <> 'unlimited' THEN
        days := least(kept::bigint, longest);
    END IF;
    IF days IS NOT NULL AND to_regclass(format('%I.trading_positions', tenant)) IS NOT NULL THEN
        EXECUTE format($delete$
            DELETE FROM %1$I.trading_positions WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM %1$I.trading_positions
                WHERE closed_at < now() - make_interval(days => $1) AND status <> 'open'
                ORDER BY closed_at LIMIT $2 FOR UPDATE SKIP LOCKED))
            $delete$, tenant) USING days, max_rows;
        GET DIAGNOSTICS deleted = ROW_COUNT;
    END IF;
    INSERT INTO public.data_cleanup_log (company_id, retention_days, deleted_rows) VALUES (company, days, deleted);
    RETURN deleted;
END $$;
-- +goose StatementEnd
COMMENT ON COLUMN public.data_cleanup_log.retention_days IS
    'How long closed positions are kept; null: without limit, or the company has no subscription, so nothing was deleted.';
