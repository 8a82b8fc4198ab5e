-- Writes forecasts of the charged revenue of a company ($1) that are made from the months up to one ($2): an array ($3). What is there stays.
INSERT INTO public.forecasts (company_id, made_month, month, currency, value_minor, low_minor, high_minor, naive_minor, steps_minor, history_months)
SELECT $1, $2, f.month, f.currency, f.value_minor, f.low_minor, f.high_minor, f.naive_minor, f.steps_minor, f.history_months
FROM jsonb_to_recordset($3::jsonb) AS f (month text, currency text, value_minor bigint, low_minor bigint, high_minor bigint, naive_minor bigint,
    steps_minor bigint, history_months integer)
ON CONFLICT DO NOTHING
