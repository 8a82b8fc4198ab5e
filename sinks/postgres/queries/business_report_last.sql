-- The newest report. No row: there is none yet.
SELECT slot, reported_at, report, published_at FROM public.business_reports ORDER BY slot DESC LIMIT 1
