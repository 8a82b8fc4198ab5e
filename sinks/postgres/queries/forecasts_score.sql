-- Notes what companies were charged for a month ($1) that there are forecasts of. It lasts from a time ($2) to another one ($3).
UPDATE public.forecasts AS f SET actual_minor = a.minor, scored_at = clock_timestamp()
FROM (
    SELECT o.company_id, o.currency, coalesce((
        SELECT sum(b.amount_minor) FROM public.billing_transactions AS b
        WHERE b.company_id = o.company_id AND b.currency = o.currency
            AND coalesce(b.period_start, b.created_at) >= $2 AND coalesce(b.period_start, b.created_at) < $3), 0)::bigint AS minor
    FROM (SELECT DISTINCT company_id, currency FROM public.forecasts WHERE month = $1) AS o
) AS a
WHERE f.month = $1 AND f.company_id = a.company_id AND f.currency = a.currency AND f.actual_minor IS DISTINCT FROM a.minor
