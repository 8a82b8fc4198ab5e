-- Of some companies: those that are purged, and the users who asked to be erased, whatever became of that.
SELECT company_id, '' AS user_id FROM public.companies WHERE company_id = ANY ($1) AND status = 'purged'
UNION ALL
SELECT company_id, user_id FROM (
    SELECT company_id, CASE WHEN strpos(event::text, '\u0000') = 0 THEN event -> 'data' ->> 'user_id' END AS user_id
    FROM public.inbox WHERE company_id = ANY ($1) AND type = 'company.user_erasure_requested.v1'
) AS erasures
WHERE user_id <> ''
