-- How many open companies have a limit of their own, by limit.
SELECT o.limit_name, count(*) AS companies
FROM public.limit_overrides AS o
JOIN public.companies AS c ON c.company_id = o.company_id
WHERE c.status = 'active'
GROUP BY o.limit_name
ORDER BY o.limit_name
