-- Usage per company, user, tier and billing period. How store, feed and view belong together: 00002_usage_hourly.sql.

-- +goose NO TRANSACTION
-- +goose Up
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS billing_monthly_store
(
    `company_id` String,
    `user_id` String,
    `subscription_tier` LowCardinality(String),
    `billing_period` LowCardinality(String) COMMENT 'YYYY-MM',
    `api_calls` SimpleAggregateFunction(sum, Int64),
    `data_points` SimpleAggregateFunction(sum, Int64),
    `revenue` SimpleAggregateFunction(sum, Decimal(38, 6)),
    `last_activity` SimpleAggregateFunction(max, DateTime64(3, 'UTC'))
)
ENGINE = AggregatingMergeTree
-- Not partitioned: the period comes from the event and need not be the month of its timestamp. One block could name
-- any number of periods, and ClickHouse refuses a block that falls into more than 100 partitions.
ORDER BY (company_id, billing_period, user_id, subscription_tier)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Partial sums; query billing_monthly';
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS billing_monthly_feed TO billing_monthly_store AS
SELECT
    company_id,
    user_id,
    subscription_tier,
    billing_period,
    toInt64(count()) AS api_calls,
    toInt64(sum(data_points_consumed)) AS data_points,
    sum(revenue_attributed) AS revenue,
    max(timestamp) AS last_activity
FROM usage_tracking
GROUP BY company_id, user_id, subscription_tier, billing_period;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS billing_monthly AS
SELECT
    company_id,
    user_id,
    subscription_tier,
    billing_period,
    sum(api_calls) AS total_api_calls,
    sum(data_points) AS total_data_consumption,
    sum(revenue) AS monthly_revenue_attributed,
    -- The cast takes the store's SimpleAggregateFunction off the type that readers see.
    CAST(max(billing_monthly_store.last_activity), 'DateTime64(3, \'UTC\')') AS last_activity
FROM billing_monthly_store
GROUP BY company_id, user_id, subscription_tier, billing_period
HAVING total_api_calls != 0
COMMENT 'Usage by company, user, tier and billing period';
-- +goose StatementEnd
