-- Companies with a schema and the version of its tables, that have not come to version $1. $2: only these; null: all.
SELECT v.company_id, max(v.version) AS "from"
FROM public.tenant_schema_versions AS v
WHERE $2::text[] IS NULL OR v.company_id = ANY ($2)
GROUP BY v.company_id
HAVING max(v.version) < $1 OR $2 IS NOT NULL
ORDER BY v.company_id
