-- The reports of the last 24 hours that are not known to be published, the oldest first.
SELECT slot, reported_at, report, published_at FROM public.business_reports
WHERE published_at IS NULL AND slot > statement_timestamp() - interval '24 hours'
ORDER BY slot
