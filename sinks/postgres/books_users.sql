-- The users of a company as its own schema (%s) has them, but for those who were removed.
SELECT user_id, email, subscription_status AS status, subscription_tier AS tier, subscription_limits AS limits
FROM %s.users WHERE subscription_status <> 'removed' ORDER BY user_id
