-- Those of some companies ($1) that have been purged for half a minute or longer, and of which everything was published before a time ($2).
SELECT c.company_id
FROM public.companies AS c
WHERE c.company_id = ANY ($1) AND c.status = 'purged' AND c.updated_at < clock_timestamp() - interval '30 seconds'
    AND NOT EXISTS (SELECT FROM public.inbox AS i WHERE i.company_id = c.company_id AND i.state IN ('done', 'rejected') AND i.fault IS NULL
        AND (i.published_at IS NULL OR i.published_at >= $2))
ORDER BY c.company_id
