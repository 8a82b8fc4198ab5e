-- What all companies were charged for periods that begin at a time ($1) or later, by the UTC month that the period begins in, the tier that the charge
-- is for, and currency.
SELECT
    to_char(coalesce(b.period_start, b.created_at) AT TIME ZONE 'UTC', 'YYYY-MM') AS month,
    coalesce(b.new_tier, b.old_tier, 'free') AS tier,
    b.currency,
    sum(b.amount_minor)::bigint AS amount_minor
FROM public.billing_transactions AS b
WHERE b.amount_minor <> 0 AND coalesce(b.period_start, b.created_at) >= $1
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
