-- The time below which 95 % of the queries of the last 24 hours stayed, by tier and route, and by tier over all routes, whose route is empty; from how many
-- samples, and how many queries those stand for.
WITH sample AS (
    SELECT q.tier, q.route, q.took, q.weight FROM public.query_samples AS q WHERE q.sampled_at > statement_timestamp() - interval '24 hours'
),
ranked AS (
    SELECT
        a.tier, a.route, a.took, a.weight,
        sum(a.weight) OVER (PARTITION BY a.tier, a.route ORDER BY a.took) AS up_to,
        sum(a.weight) OVER (PARTITION BY a.tier, a.route) AS total
    FROM (SELECT * FROM sample UNION ALL SELECT tier, '', took, weight FROM sample) AS a
)
SELECT r.tier, r.route, count(*) AS samples, round(sum(r.weight))::bigint AS queries, min(r.took) FILTER (WHERE r.up_to >= 0.95 * r.total) AS p95
FROM ranked AS r
GROUP BY r.tier, r.route
ORDER BY r.tier, r.route
