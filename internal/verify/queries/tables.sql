-- How many of the usage tables there are.
SELECT count()
FROM system.tables
WHERE database = currentDatabase() AND name IN
    ('usage_tracking', 'usage_hourly_store', 'usage_daily_store', 'billing_monthly_store', 'usage_corrections', 'usage_rechecks')
