-- The next configurations ($2: at most how many) of companies after one ($1) that are not purged, in the order of their ids. Quiet is
-- one that has not been written for half a minute.
SELECT f.company_id, f.config, f.version, f.updated_at, f.updated_at < clock_timestamp() - interval '30 seconds' AS quiet
FROM public.company_config AS f
JOIN public.companies AS c ON c.company_id = f.company_id
WHERE c.status <> 'purged' AND f.company_id > $1
ORDER BY f.company_id
LIMIT $2
