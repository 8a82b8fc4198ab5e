-- What the schema of each company that is not purged takes, in bytes, and whether it holds a position that was closed longer ago than the company's
-- effective limits keep it, and so many days ($1) more, in which it has to be removed. Null: it can't be measured. kept is false where the company
-- keeps positions for ever, or has no subscription that says how long.
SELECT c.company_id, coalesce(l.days IS NOT NULL, false) AS kept, m.bytes, m.overdue
FROM public.companies AS c
LEFT JOIN public.subscriptions AS s ON s.company_id = c.company_id
CROSS JOIN LATERAL (
    SELECT CASE WHEN s.effective_limits ->> 'retention_days' ~ '^[0-9]{1,6}$' THEN (s.effective_limits ->> 'retention_days')::integer END AS days
) AS l
CROSS JOIN LATERAL public.measure_company(c.company_id, l.days + $1::integer) AS m
WHERE c.status <> 'purged'
ORDER BY c.company_id
