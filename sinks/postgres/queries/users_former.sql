-- The last companies that users ($1: their ids) have belonged to who belong to none now.
SELECT
    m.user_id,
    array_agg(m.company_id ORDER BY m.since DESC) AS companies,
    array_agg(m.since ORDER BY m.since DESC) AS since,
    array_agg(m.until ORDER BY m.since DESC) AS until,
    array_agg(m.recorded_at ORDER BY m.since DESC) AS recorded_at,
    array_agg(m.ended_at ORDER BY m.since DESC) AS ended_at,
    max(o.origin) AS origin
FROM unnest($1::text[]) AS asked (user_id)
CROSS JOIN (SELECT coalesce(public.data_origin(), '') AS origin) AS o
CROSS JOIN LATERAL (
    SELECT user_id, company_id, since, until, recorded_at, ended_at FROM public.user_memberships
    WHERE user_id = asked.user_id ORDER BY since DESC, company_id LIMIT 32) AS m
GROUP BY m.user_id
