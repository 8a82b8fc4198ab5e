-- The transactions of a company ($1).
SELECT transaction_id, transaction_type, coalesce(old_tier, '') AS old_tier, coalesce(new_tier, '') AS new_tier, amount_minor, currency,
    lines, period_start, period_end, created_at
FROM public.billing_transactions WHERE company_id = $1 ORDER BY created_at, transaction_id
