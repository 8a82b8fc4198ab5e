-- The recommendations ($1: at most how many) that are not known to be published, the oldest first. A company that was purged has none.
SELECT r.recommendation_id::text AS id, r.company_id, r.user_id, r.kind, r.month, r.detail
FROM public.recommendations AS r
JOIN public.companies AS c ON c.company_id = r.company_id
WHERE r.flagged AND r.published_at IS NULL AND c.status <> 'purged'
ORDER BY r.created_at
LIMIT $1
