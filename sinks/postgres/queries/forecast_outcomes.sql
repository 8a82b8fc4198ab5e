-- The forecasts for the months from one ($1) to another ($2) whose actual value is known. Distance: how many months behind the last one that the
-- forecast knows.
SELECT
    (extract(year FROM age(to_date(month, 'YYYY-MM'), to_date(made_month, 'YYYY-MM'))) * 12
        + extract(month FROM age(to_date(month, 'YYYY-MM'), to_date(made_month, 'YYYY-MM'))))::integer AS distance,
    value_minor,
    low_minor,
    high_minor,
    naive_minor,
    actual_minor,
    steps_minor,
    history_months
FROM public.forecasts
WHERE month >= $1 AND month <= $2 AND actual_minor IS NOT NULL
