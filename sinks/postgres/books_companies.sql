-- Up to $2 companies behind a company ($1) of which anything is recorded; since a time ($3, null: ever): of which an event was applied.
SELECT company_id FROM (
    SELECT company_id FROM public.companies WHERE $3::timestamptz IS NULL
    UNION SELECT company_id FROM public.audit_log WHERE $3 IS NULL
    UNION SELECT company_id FROM public.company_heads WHERE $3 IS NULL
    UNION SELECT company_id FROM public.inbox WHERE applied_at >= $3
) AS known
WHERE company_id > $1 ORDER BY company_id LIMIT $2
