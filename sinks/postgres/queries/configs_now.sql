-- The configurations that some companies ($1) have now, where their versions are not those that the caller knows ($2, in the same order; -1: the
-- company is purged). Companies that have none and are not purged are left out.
SELECT c.company_id, c.status = 'purged' AS purged, coalesce(f.config, 'null') AS config, coalesce(f.version, 0) AS version,
    coalesce(f.updated_at, c.created_at) AS updated_at
FROM unnest($1::text[], $2::bigint[]) AS k (company_id, version)
JOIN public.companies AS c ON c.company_id = k.company_id
LEFT JOIN public.company_config AS f ON f.company_id = c.company_id AND c.status <> 'purged'
WHERE CASE c.status WHEN 'purged' THEN -1 ELSE f.version END <> k.version
