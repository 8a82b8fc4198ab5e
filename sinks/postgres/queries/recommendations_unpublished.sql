-- The recommendations ($1: at most how many) that are not known to be published, the oldest first.
SELECT recommendation_id::text AS id, company_id, user_id, kind, month, detail
FROM public.recommendations
WHERE flagged AND published_at IS NULL
ORDER BY created_at
LIMIT $1
