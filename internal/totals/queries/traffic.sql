-- Inserts that run, by their kind or by the comment of the service's own; how many blocks the tables were ever written, in a way; and the
-- clock, in milliseconds.
SELECT
    (SELECT count() FROM system.processes
        WHERE current_database = currentDatabase()
            AND (query_kind = 'Insert' OR startsWith(Settings['log_comment'], 'tenantflow:usage_tracking:'))),
    (SELECT toInt64(sum(newest)) FROM (
        SELECT max(max_block_number) AS newest FROM system.parts
        WHERE database = currentDatabase() AND active
            AND table IN ('usage_tracking', 'usage_hourly_store', 'usage_daily_store', 'billing_monthly_store')
        GROUP BY table, partition_id)),
    toUnixTimestamp64Milli(now64(3))
