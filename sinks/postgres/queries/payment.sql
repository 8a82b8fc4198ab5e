-- What is known of a payment ($1), whichever company it is of.
SELECT payment_id, company_id, amount_minor, coalesce(currency, '') AS currency, paid_at, coalesce(method, '') AS method, status,
    coalesce(billing_period, '') AS billing_period, coalesce(transaction_id, '') AS transaction_id, period_start,
    coalesce(reason, '') AS reason
FROM public.payments
WHERE payment_id = $1
