-- What some companies ($1) have for a configuration now: none where they are purged. Companies that have neither are left out.
SELECT c.company_id, c.status = 'purged' AS purged, coalesce(f.config, 'null') AS config, coalesce(f.version, 0) AS version,
    coalesce(f.updated_at, c.created_at) AS updated_at
FROM public.companies AS c
LEFT JOIN public.company_config AS f ON f.company_id = c.company_id AND c.status <> 'purged'
WHERE c.company_id = ANY ($1) AND (c.status = 'purged' OR f.company_id IS NOT NULL)
