-- The configurations that some companies ($1) have now, where their versions are not those that the caller knows ($2, in the same order). The
-- version of one whose company is purged is -1. Companies that have none and are not purged are left out.
SELECT n.company_id, coalesce(n.config, 'null') AS config, n.version, coalesce(n.updated_at, n.created_at) AS updated_at
FROM unnest($1::text[], $2::bigint[]) AS k (company_id, version)
JOIN (
    SELECT c.company_id, c.created_at, f.config, f.updated_at, CASE c.status WHEN 'purged' THEN -1 ELSE f.version END AS version
    FROM public.companies AS c
    LEFT JOIN public.company_config AS f ON f.company_id = c.company_id AND c.status <> 'purged'
) AS n ON n.company_id = k.company_id AND n.version <> k.version
