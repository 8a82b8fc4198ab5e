-- The next companies ($3: at most how many) after one ($2) that are open, have a subscription, and have no recommendation of a month ($1) yet, in
-- the order of their ids. Those of one company are written together.
SELECT c.company_id
FROM public.companies AS c
JOIN public.subscriptions AS s ON s.company_id = c.company_id
WHERE c.status = 'active' AND c.company_id > $2
    AND NOT EXISTS (SELECT FROM public.recommendations AS r WHERE r.month = $1 AND r.company_id = c.company_id AND r.kind IN ('churn', 'upsell'))
ORDER BY c.company_id
LIMIT $3
