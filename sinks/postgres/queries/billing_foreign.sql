-- The memberships of those of some users ($2) who have belonged to another company than one ($1).
SELECT m.user_id, m.company_id, m.since, m.until
FROM public.user_memberships AS m
WHERE m.user_id = ANY ($2)
    AND EXISTS (SELECT FROM public.user_memberships AS o WHERE o.user_id = m.user_id AND o.company_id <> $1)
ORDER BY m.user_id, m.since
