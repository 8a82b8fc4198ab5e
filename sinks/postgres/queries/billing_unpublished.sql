-- Closed exports of which it is not known that they were announced, the oldest first, up to $1; without their bytes.
SELECT export_id, company_id, billing_period, revision, state, as_of, checksum, csv_checksum, currency, totals, reconciled, created_at, published_at,
    ''::bytea AS content_json, ''::bytea AS content_csv
FROM public.billing_exports
WHERE published_at IS NULL
ORDER BY seq
LIMIT $1
