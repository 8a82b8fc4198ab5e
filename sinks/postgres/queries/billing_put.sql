-- Stores a closed export. Parameters: export_id, company_id, billing_period, as_of, checksum, csv_checksum, currency, totals, reconciled, content_json, content_csv,
-- created_at.
INSERT INTO public.billing_exports (export_id, company_id, billing_period, state, as_of, checksum, csv_checksum, currency, totals, reconciled,
    content_json, content_csv, created_at)
VALUES ($1, $2, $3, 'closed', $4, $5, $6, $7, $8, $9, $10, $11, $12)
