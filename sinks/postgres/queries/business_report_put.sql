-- Stores a report ($3) that was made at a time ($2) for a slot ($1), unless the slot has one, and removes those that are older than 90 days.
WITH old AS (
    DELETE FROM public.business_reports WHERE slot < statement_timestamp() - interval '90 days' AND slot <> $1
)
INSERT INTO public.business_reports (slot, reported_at, report) VALUES ($1, $2, $3)
ON CONFLICT (slot) DO NOTHING
