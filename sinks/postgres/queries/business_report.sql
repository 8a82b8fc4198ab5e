-- The report of a slot ($1). No row: there is none yet.
SELECT slot, reported_at, report, published_at FROM public.business_reports WHERE slot = $1
