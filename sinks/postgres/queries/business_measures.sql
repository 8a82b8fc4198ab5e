-- Of up to 100 companies behind one ($1), purged ones left out, by their ids: what the schema of each takes, in bytes, and whether it holds a position that was
-- closed longer ago than the company keeps it, and so many days ($2) more, in which it has to be removed. It is kept by the effective limits, and for 30 days
-- after a tier was left as that tier kept it. Null: it can't be measured. kept is false where the company keeps positions for ever, or has no subscription
-- that says how long. Not all companies at once: each takes locks until the statement ends.
SELECT c.company_id, coalesce(l.days IS NOT NULL, false) AS kept, m.bytes, m.overdue
FROM (
    SELECT o.company_id FROM public.companies AS o WHERE o.status <> 'purged' AND o.company_id > $1 ORDER BY o.company_id LIMIT 100
) AS c
LEFT JOIN public.subscriptions AS s ON s.company_id = c.company_id
CROSS JOIN LATERAL (
    SELECT CASE WHEN s.effective_limits ->> 'retention_days' ~ '^[0-9]{1,6}$' THEN greatest((s.effective_limits ->> 'retention_days')::integer, (
        SELECT max((t.limits ->> 'retention_days')::integer)
        FROM public.subscription_events AS h
        JOIN public.subscription_tiers AS t ON t.tier = coalesce(h.data ->> 'from', h.data ->> 'tier')
        WHERE h.company_id = c.company_id AND h.event IN ('subscription.downgraded', 'subscription.cancelled', 'subscription.expired')
            AND h.event_time > statement_timestamp() - interval '30 days' AND t.limits ->> 'retention_days' ~ '^[0-9]{1,6}$'
    )) END AS days
) AS l
CROSS JOIN LATERAL public.measure_company(c.company_id, l.days + $2::integer) AS m
ORDER BY c.company_id
