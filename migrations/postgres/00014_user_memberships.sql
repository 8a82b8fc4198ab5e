-- +goose Up

-- Whose a user was, and when. Usage is judged by the company its user belonged to at the usage's own time, however much later, and
-- however often, it is counted.
CREATE TABLE public.user_memberships (
    user_id    text        COLLATE "C" NOT NULL,
    company_id text        COLLATE "C" NOT NULL, -- no reference: what was outlives a company that is deleted
    since      timestamptz NOT NULL,
    until      timestamptz CHECK (until >= since),
    PRIMARY KEY (user_id, company_id, since),
    CHECK (since >= '0001-01-01 00:00+00' AND until < '10000-01-01 00:00+00')
);
COMMENT ON TABLE public.user_memberships IS
    'Which companies a user has belonged to: from since on, until not included. Times are those of the events that said so. Written by triggers on user_directory.';
COMMENT ON COLUMN public.user_memberships.until IS 'Null: the user still belongs to the company.';

INSERT INTO public.user_memberships (user_id, company_id, since) SELECT user_id, company_id, created_at FROM public.user_directory;

-- +goose StatementBegin
-- The time from which what this transaction does holds: that of its event, which is set with
-- set_config('tenantflow.effective_at', ..., true); now, where it is changed by hand.
CREATE FUNCTION public.effective_at() RETURNS timestamptz LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(nullif(current_setting('tenantflow.effective_at', true), '')::timestamptz, clock_timestamp())
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION public.keep_membership() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE public.user_memberships AS m SET until = greatest(m.since, public.effective_at())
        WHERE m.user_id = OLD.user_id AND m.company_id = OLD.company_id AND m.until IS NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO public.user_memberships (user_id, company_id, since)
        VALUES (NEW.user_id, NEW.company_id, CASE TG_OP WHEN 'INSERT' THEN NEW.created_at ELSE public.effective_at() END)
        ON CONFLICT (user_id, company_id, since) DO UPDATE SET until = NULL;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION public.end_memberships() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.user_memberships AS m SET until = greatest(m.since, public.effective_at()) WHERE m.until IS NULL;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER membership AFTER INSERT OR DELETE ON public.user_directory
    FOR EACH ROW EXECUTE FUNCTION public.keep_membership();
CREATE TRIGGER move AFTER UPDATE OF user_id, company_id ON public.user_directory
    FOR EACH ROW WHEN (OLD.user_id <> NEW.user_id OR OLD.company_id <> NEW.company_id) EXECUTE FUNCTION public.keep_membership();
CREATE TRIGGER end_of_all AFTER TRUNCATE ON public.user_directory
    FOR EACH STATEMENT EXECUTE FUNCTION public.end_memberships();

COMMENT ON FUNCTION public.effective_at() IS 'The time of the event that the transaction applies; now, where it applies none.';
