-- How many companies have a schema, and how many of them have not come to version $1.
SELECT count(*) AS companies, count(*) FILTER (WHERE version < $1) AS behind
FROM (SELECT max(version) AS version FROM public.tenant_schema_versions GROUP BY company_id) AS of_each
