-- Notes of the users of a company ($2) who were judged at the end of a month ($1) whether they have left: those who made calls in the month behind it are
-- given ($3). Returns how many outcomes are new.
UPDATE public.recommendations AS r SET outcome = NOT r.user_id = ANY ($3::text[]), scored_at = clock_timestamp()
WHERE r.month = $1 AND r.kind = 'churn' AND r.company_id = $2 AND r.outcome IS DISTINCT FROM (NOT r.user_id = ANY ($3::text[]))
