-- +goose Up

-- The change feed: who keeps copies of companies and users elsewhere reads here what has become old. Triggers write it,
-- so it also tells what somebody changes by hand.

CREATE SEQUENCE public.change_seq AS bigint;
COMMENT ON SEQUENCE public.change_seq IS
    'Versions of companies and of everything that belongs to one. Within a company they rise in the order of commits.';

CREATE TABLE public.changes (
    version    bigint      NOT NULL,
    company_id text        COLLATE "C" NOT NULL,
    user_id    text        COLLATE "C",
    -- Commits happen in another order than versions are given: who reads by version misses what commits late. A
    -- transaction's id compared with a snapshot says exactly whether an earlier reader has seen it.
    xid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    -- Not now(): that is when the transaction began, which may be long ago when it commits.
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX changes_by_transaction ON public.changes (xid);
CREATE INDEX changes_by_time ON public.changes (changed_at);
COMMENT ON TABLE public.changes IS 'What was changed lately, one row a company or user and change. Old rows are removed by the service.';
COMMENT ON COLUMN public.changes.user_id IS 'The user concerned; null: the whole company.';
COMMENT ON COLUMN public.changes.xid IS 'The transaction that made the change. Rows it makes become readable together.';

-- +goose StatementBegin
-- Gives a row its version. Before that it locks the company, until the transaction ends: two changes of one company at
-- the same time would otherwise commit in either order, and a copy that holds the higher version would not show the
-- lower one, nor look old.
CREATE FUNCTION public.set_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_TABLE_NAME <> 'companies' THEN
        PERFORM FROM public.companies
        WHERE company_id = NEW.company_id OR TG_OP = 'UPDATE' AND company_id = OLD.company_id
        ORDER BY company_id FOR NO KEY UPDATE;
    END IF;
    NEW.version := nextval('public.change_seq');
    NEW.updated_at := now();
    RETURN NEW;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Tells the change of a row to the feed.
CREATE FUNCTION public.tell_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before jsonb := to_jsonb(OLD); -- null where there is none
    after  jsonb := to_jsonb(NEW);
BEGIN
    IF after IS NOT NULL THEN
        INSERT INTO public.changes (version, company_id, user_id) VALUES (NEW.version, NEW.company_id, after ->> 'user_id');
    END IF;
    -- A user who goes to another company is a change for the old one as well.
    IF before IS NULL
        OR after IS NOT NULL AND OLD.company_id = NEW.company_id AND before ->> 'user_id' IS NOT DISTINCT FROM after ->> 'user_id' THEN
        RETURN NULL;
    END IF;
    IF TG_TABLE_NAME IN ('company_config', 'subscriptions') THEN
        -- The row takes its version with it. So the company gets a new one, which tells the change: a copy made from
        -- what is left must not look older than that.
        UPDATE public.companies SET version = 0 WHERE company_id = OLD.company_id;
        RETURN NULL;
    END IF;
    PERFORM FROM public.companies WHERE company_id = OLD.company_id FOR NO KEY UPDATE; -- as in set_version
    INSERT INTO public.changes (version, company_id, user_id)
    VALUES (nextval('public.change_seq'), OLD.company_id, before ->> 'user_id');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- TRUNCATE calls no row's trigger, so what goes is told before.
CREATE FUNCTION public.tell_truncate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_TABLE_NAME = 'companies' THEN
        INSERT INTO public.changes (version, company_id) SELECT nextval('public.change_seq'), company_id FROM public.companies;
    ELSE
        EXECUTE format('UPDATE public.companies SET version = 0 WHERE company_id IN (SELECT company_id FROM public.%I)', TG_TABLE_NAME);
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
