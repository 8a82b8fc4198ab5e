-- Those of some users ($2: their ids) who belong to a company ($1) and are not suspended.
SELECT user_id
FROM public.user_directory
WHERE company_id = $1 AND user_id = ANY ($2) AND subscription_status = 'active'
