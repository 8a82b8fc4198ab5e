-- Those of some companies ($1) that have been purged for half a minute or longer.
SELECT company_id
FROM public.companies
WHERE company_id = ANY ($1) AND status = 'purged' AND updated_at < clock_timestamp() - interval '30 seconds'
ORDER BY company_id
