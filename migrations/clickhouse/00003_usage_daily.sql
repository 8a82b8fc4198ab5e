-- Usage per company, user, tier and UTC day. How store, feed and view belong together: 00002_usage_hourly.sql.

-- +goose NO TRANSACTION
-- +goose Up
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS usage_daily_store
(
    `company_id` String,
    `user_id` String,
    `subscription_tier` LowCardinality(String),
    `day` Date CODEC(Delta, LZ4),
    `api_calls` SimpleAggregateFunction(sum, Int64),
    `data_points` SimpleAggregateFunction(sum, Int64),
    `revenue` SimpleAggregateFunction(sum, Decimal(38, 6)),
    `last_activity` SimpleAggregateFunction(max, DateTime64(3, 'UTC'))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (company_id, user_id, day, subscription_tier)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Partial sums; query usage_daily';
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS usage_daily_feed TO usage_daily_store AS
SELECT
    company_id,
    user_id,
    subscription_tier,
    toDate(timestamp) AS day,
    toInt64(count()) AS api_calls,
    toInt64(sum(data_points_consumed)) AS data_points,
    sum(revenue_attributed) AS revenue,
    max(timestamp) AS last_activity
FROM usage_tracking
GROUP BY company_id, user_id, subscription_tier, day;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS usage_daily AS
SELECT
    company_id,
    user_id,
    subscription_tier,
    day,
    sum(api_calls) AS total_api_calls,
    sum(data_points) AS total_data_consumption,
    sum(revenue) AS revenue_attributed,
    -- The cast takes the store's SimpleAggregateFunction off the type that readers see.
    CAST(max(usage_daily_store.last_activity), 'DateTime64(3, \'UTC\')') AS last_activity
FROM usage_daily_store
GROUP BY company_id, user_id, subscription_tier, day
HAVING total_api_calls != 0
COMMENT 'Usage by company, user, tier and day (UTC)';
-- +goose StatementEnd
