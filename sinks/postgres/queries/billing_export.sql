-- The closed export of a company ($1) and a period ($2: YYYY-MM).
SELECT export_id, company_id, billing_period, revision, state, as_of, checksum, csv_checksum, currency, totals, reconciled, created_at, published_at,
    content_json, content_csv
FROM public.billing_exports
WHERE company_id = $1 AND billing_period = $2 AND state = 'closed'
