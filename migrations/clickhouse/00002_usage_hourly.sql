-- Usage per company, tier, service and hour.
--
-- Three objects each for this and the following aggregates: a store that adds rows of equal key up when parts
-- merge, a feed that turns every block of usage_tracking into rows of the store, and the view that people query,
-- which adds up what is not merged yet. All columns of a store are signed sums or maxima, so a wrong total is
-- corrected by inserting the difference. A store has no TTL: totals outlive the rows they came from.

-- +goose NO TRANSACTION
-- +goose Up
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS usage_hourly_store
(
    `company_id` String,
    `subscription_tier` LowCardinality(String),
    `service_name` LowCardinality(String),
    `hour` DateTime('UTC') CODEC(Delta, LZ4),
    `requests` SimpleAggregateFunction(sum, Int64),
    `data_points` SimpleAggregateFunction(sum, Int64),
    `processing_time_ms` SimpleAggregateFunction(sum, Decimal(38, 3)),
    `revenue` SimpleAggregateFunction(sum, Decimal(38, 6))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (company_id, hour, subscription_tier, service_name)
-- A retried block must be dropped here as well as in usage_tracking; see the setting there.
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Partial sums; query usage_analytics_hourly';
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS usage_hourly_feed TO usage_hourly_store AS
SELECT
    company_id,
    subscription_tier,
    service_name,
    toStartOfHour(timestamp) AS hour,
    toInt64(count()) AS requests,
    toInt64(sum(data_points_consumed)) AS data_points,
    sum(usage_tracking.processing_time_ms) AS processing_time_ms,
    sum(revenue_attributed) AS revenue
FROM usage_tracking
GROUP BY company_id, subscription_tier, service_name, hour;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS usage_analytics_hourly AS
SELECT
    company_id,
    subscription_tier,
    service_name,
    hour,
    sum(requests) AS total_requests,
    sum(data_points) AS total_data_points,
    -- Milliseconds, cut off after the third decimal. Over several hours divide the totals, never average this.
    sum(processing_time_ms) / sum(requests) AS avg_processing_time,
    sum(revenue) AS total_revenue,
    sum(processing_time_ms) AS total_processing_time
FROM usage_hourly_store
GROUP BY company_id, subscription_tier, service_name, hour
-- A key whose rows were all taken back stays in the store as zeros. It is not usage.
HAVING total_requests != 0
COMMENT 'Usage by company, tier, service and hour (UTC)';
-- +goose StatementEnd
