-- A template: since when users have usage.
SELECT company_id AS c, user_id AS u, toString(subscription_tier) AS t, min(day) AS d
FROM usage_daily_store
WHERE (company_id, user_id, subscription_tier) IN ({{.}})
GROUP BY c, u, t
