-- Notes of the users of a company ($2) who were judged at the end of a month ($1) whether they have left: those who made calls in the month behind it are
-- given ($3). They are looked up in a table of hashes, which = ANY ($3) is not in a plan for any $3. Returns how many outcomes are new.
UPDATE public.recommendations AS r SET outcome = r.user_id NOT IN (SELECT unnest($3::text[])), scored_at = clock_timestamp()
WHERE r.month = $1 AND r.kind = 'churn' AND r.company_id = $2 AND r.outcome IS DISTINCT FROM (r.user_id NOT IN (SELECT unnest($3::text[])))
