-- +goose Up

-- When the database came to know what a membership says. An event may be dated earlier than it is applied, and usage that came in
-- between was counted by what was known then. With these times a later count comes to the same verdict.
ALTER TABLE public.user_memberships ADD COLUMN recorded_at timestamptz, ADD COLUMN ended_at timestamptz;
COMMENT ON COLUMN public.user_memberships.recorded_at IS
    'When the row was written, by the clock of the database; since is the time of the event. Null: before this was kept.';
COMMENT ON COLUMN public.user_memberships.ended_at IS
    'When until was written, by the clock of the database. Null: the membership has not ended, or did before this was kept.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.keep_membership() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE public.user_memberships AS m SET until = greatest(m.since, public.effective_at()), ended_at = clock_timestamp()
        WHERE m.user_id = OLD.user_id AND m.company_id = OLD.company_id AND m.until IS NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO public.user_memberships (user_id, company_id, since, recorded_at)
        VALUES (NEW.user_id, NEW.company_id, CASE TG_OP WHEN 'INSERT' THEN NEW.created_at ELSE public.effective_at() END, clock_timestamp())
        ON CONFLICT (user_id, company_id, since) DO UPDATE SET until = NULL, recorded_at = EXCLUDED.recorded_at, ended_at = NULL;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.end_memberships() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.user_memberships AS m SET until = greatest(m.since, public.effective_at()), ended_at = clock_timestamp() WHERE m.until IS NULL;
    RETURN NULL;
END $$;
-- +goose StatementEnd
