-- The users of a company ($1) as the directory has them.
SELECT user_id, email, subscription_status AS status FROM public.user_directory WHERE company_id = $1 ORDER BY user_id
