-- Writes a charge or a credit of a company.
INSERT INTO public.billing_transactions (transaction_id, company_id, transaction_type, old_tier, new_tier, amount_minor, currency, lines,
    period_start, period_end, payment_data, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
