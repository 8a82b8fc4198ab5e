-- The payments of a company ($1).
SELECT payment_id, coalesce(amount_minor, 0) AS amount_minor, coalesce(currency, '') AS currency, status,
    coalesce(transaction_id, '') AS transaction_id
FROM public.payments WHERE company_id = $1 ORDER BY payment_id
