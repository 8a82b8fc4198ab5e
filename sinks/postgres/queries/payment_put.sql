-- Writes what is known of a payment. None of another company: no row is returned then.
INSERT INTO public.payments AS p (payment_id, company_id, amount_minor, currency, paid_at, method, status, billing_period, transaction_id,
    period_start, reason, created_at, updated_at)
VALUES ($1, $2, $3, nullif($4, ''), $5, nullif($6, ''), $7, nullif($8, ''), nullif($9, ''), $10, nullif($11, ''), $12, $12)
ON CONFLICT (payment_id) DO UPDATE SET (amount_minor, currency, paid_at, method, status, billing_period, transaction_id, period_start,
    reason, updated_at)
    = (EXCLUDED.amount_minor, EXCLUDED.currency, EXCLUDED.paid_at, EXCLUDED.method, EXCLUDED.status, EXCLUDED.billing_period,
    EXCLUDED.transaction_id, EXCLUDED.period_start, EXCLUDED.reason, EXCLUDED.updated_at)
    WHERE p.company_id = EXCLUDED.company_id
RETURNING 1
