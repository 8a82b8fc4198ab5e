-- +goose Up

-- +goose StatementBegin
-- The period that a subscription is in now. One with a price is in the period it says: somebody renews it, or it expires. One
-- without goes on by itself, month after month from its start, on the same day of the month or the last one in a shorter month.
CREATE FUNCTION public.current_period(period_start timestamptz, period_end timestamptz, price_minor bigint, OUT starts timestamptz, OUT ends timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- In UTC, where a month has the same length for everybody.
    began  timestamp := period_start AT TIME ZONE 'UTC';
    passed interval;
    months integer;
BEGIN
    starts := period_start;
    ends := period_end;
    IF price_minor > 0 OR period_end > now() THEN
        RETURN;
    END IF;
    passed := age(now() AT TIME ZONE 'UTC', began);
    months := extract(year FROM passed) * 12 + extract(month FROM passed);
    -- The 28th of February is less than a month after the 31st of January to age(), and the end of one to us.
    IF began + (months + 1) * interval '1 month' <= now() AT TIME ZONE 'UTC' THEN
        months := months + 1;
    END IF;
    starts := (began + months * interval '1 month') AT TIME ZONE 'UTC';
    ends := (began + (months + 1) * interval '1 month') AT TIME ZONE 'UTC';
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION public.current_period(timestamptz, timestamptz, bigint) IS
    'The period a subscription is in now. Without a price it goes on month after month from its start. It reads no table: anybody may call it.';
