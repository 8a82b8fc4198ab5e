-- The next configurations ($2: at most how many) of companies after one ($1) that are not purged, in the order of their ids. Quiet
-- is one that has not been written for half a minute, and of whose company everything was published before a time ($3).
SELECT f.company_id, f.config, f.version, f.updated_at, f.updated_at < clock_timestamp() - interval '30 seconds'
    AND NOT EXISTS (SELECT FROM public.inbox AS i WHERE i.company_id = f.company_id AND i.state IN ('done', 'rejected') AND i.fault IS NULL
        AND (i.published_at IS NULL OR i.published_at >= $3)) AS quiet
FROM public.company_config AS f
JOIN public.companies AS c ON c.company_id = f.company_id
WHERE c.status <> 'purged' AND f.company_id > $1
ORDER BY f.company_id
LIMIT $2
