-- billing_monthly
CREATE VIEW billing_monthly
(
    `company_id` String,
    `user_id` String,
    `subscription_tier` LowCardinality(String),
    `billing_period` LowCardinality(String),
    `total_api_calls` Int64,
    `total_data_consumption` Int64,
    `monthly_revenue_attributed` Decimal(38, 6),
    `last_activity` DateTime64(3, 'UTC')
)
COMMENT 'Usage by company, user, tier and billing period'
AS SELECT
    company_id,
    user_id,
    subscription_tier,
    billing_period,
    sum(api_calls) AS total_api_calls,
    sum(data_points) AS total_data_consumption,
    sum(revenue) AS monthly_revenue_attributed,
    CAST(max(billing_monthly_store.last_activity), 'DateTime64(3, \'UTC\')') AS last_activity
FROM billing_monthly_store
GROUP BY
    company_id,
    user_id,
    subscription_tier,
    billing_period
HAVING total_api_calls != 0;

-- billing_monthly_feed
CREATE MATERIALIZED VIEW billing_monthly_feed TO billing_monthly_store
(
    `company_id` String,
    `user_id` String,
    `subscription_tier` LowCardinality(String),
    `billing_period` LowCardinality(String),
    `api_calls` Int64,
    `data_points` Int64,
    `revenue` Decimal(38, 6),
    `last_activity` DateTime64(3, 'UTC')
)
AS SELECT
    company_id,
    user_id,
    subscription_tier,
    billing_period,
    toInt64(sum(sign)) AS api_calls,
    toInt64(sum(sign * toInt64(data_points_consumed))) AS data_points,
    sum(sign * revenue_attributed) AS revenue,
    max(timestamp) AS last_activity
FROM usage_tracking
GROUP BY
    company_id,
    user_id,
    subscription_tier,
    billing_period;

-- billing_monthly_store
CREATE TABLE billing_monthly_store
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
ORDER BY (company_id, billing_period, user_id, subscription_tier)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192
COMMENT 'Partial sums; query billing_monthly';

-- usage_analytics_hourly
CREATE VIEW usage_analytics_hourly
(
    `company_id` String,
    `subscription_tier` LowCardinality(String),
    `service_name` LowCardinality(String),
    `hour` DateTime('UTC'),
    `total_requests` Int64,
    `total_data_points` Int64,
    `avg_processing_time` Decimal(38, 3),
    `total_revenue` Decimal(38, 6),
    `total_processing_time` Decimal(38, 3)
)
COMMENT 'Usage by company, tier, service and hour (UTC)'
AS SELECT
    company_id,
    subscription_tier,
    service_name,
    hour,
    sum(requests) AS total_requests,
    sum(data_points) AS total_data_points,
    sum(processing_time_ms) / sum(requests) AS avg_processing_time,
    sum(revenue) AS total_revenue,
    sum(processing_time_ms) AS total_processing_time
FROM usage_hourly_store
GROUP BY
    company_id,
    subscription_tier,
    service_name,
    hour
HAVING total_requests != 0;

-- usage_corrections
CREATE TABLE usage_corrections
(
    `claim` String COMMENT 'One for each statement that corrects',
    `step` Enum8('claimed' = 1, 'applied' = 2, 'dropped' = 3) COMMENT 'claimed: about to be sent; applied; dropped: no longer needed, or refused. A claim with neither: its process ended',
    `store` LowCardinality(String) COMMENT 'The table that holds the total',
    `key` Array(String) COMMENT 'The key columns of the view, in their order',
    `number` UInt32 COMMENT 'Of the claims of a key, the highest may be applied',
    `difference` Array(String) COMMENT 'What is added to the sums of the store, in their order',
    `last_activity` DateTime64(3, 'UTC') COMMENT 'Largest timestamp of the rows; 1970: the view has none',
    `reason` LowCardinality(String),
    `written_by` String COMMENT 'Host and process',
    `written_at` DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(written_at)
ORDER BY (store, key, number, claim)
TTL toDateTime(written_at) + toIntervalYear(1)
SETTINGS ttl_only_drop_parts = 1, index_granularity = 8192
COMMENT 'Corrections of totals';

-- usage_daily
CREATE VIEW usage_daily
(
    `company_id` String,
    `user_id` String,
    `subscription_tier` LowCardinality(String),
    `day` Date,
    `total_api_calls` Int64,
    `total_data_consumption` Int64,
    `revenue_attributed` Decimal(38, 6),
    `last_activity` DateTime64(3, 'UTC')
)
COMMENT 'Usage by company, user, tier and day (UTC)'
AS SELECT
    company_id,
    user_id,
    subscription_tier,
    day,
    sum(api_calls) AS total_api_calls,
    sum(data_points) AS total_data_consumption,
    sum(revenue) AS revenue_attributed,
    CAST(max(usage_daily_store.last_activity), 'DateTime64(3, \'UTC\')') AS last_activity
FROM usage_daily_store
GROUP BY
    company_id,
    user_id,
    subscription_tier,
    day
HAVING total_api_calls != 0;

-- usage_daily_feed
CREATE MATERIALIZED VIEW usage_daily_feed TO usage_daily_store
(
    `company_id` String,
    `user_id` String,
    `subscription_tier` LowCardinality(String),
    `day` Date,
    `api_calls` Int64,
    `data_points` Int64,
    `revenue` Decimal(38, 6),
    `last_activity` DateTime64(3, 'UTC')
)
AS SELECT
    company_id,
    user_id,
    subscription_tier,
    toDate(timestamp) AS day,
    toInt64(sum(sign)) AS api_calls,
    toInt64(sum(sign * toInt64(data_points_consumed))) AS data_points,
    sum(sign * revenue_attributed) AS revenue,
    max(timestamp) AS last_activity
FROM usage_tracking
GROUP BY
    company_id,
    user_id,
    subscription_tier,
    day;

-- usage_daily_store
CREATE TABLE usage_daily_store
(
    `company_id` String,
    `user_id` String,
    `subscription_tier` LowCardinality(String),
    `day` Date CODEC(Delta(2), LZ4),
    `api_calls` SimpleAggregateFunction(sum, Int64),
    `data_points` SimpleAggregateFunction(sum, Int64),
    `revenue` SimpleAggregateFunction(sum, Decimal(38, 6)),
    `last_activity` SimpleAggregateFunction(max, DateTime64(3, 'UTC'))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (company_id, user_id, day, subscription_tier)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192
COMMENT 'Partial sums; query usage_daily';

-- usage_hourly_feed
CREATE MATERIALIZED VIEW usage_hourly_feed TO usage_hourly_store
(
    `company_id` String,
    `subscription_tier` LowCardinality(String),
    `service_name` LowCardinality(String),
    `hour` DateTime('UTC'),
    `requests` Int64,
    `data_points` Int64,
    `processing_time_ms` Decimal(38, 3),
    `revenue` Decimal(38, 6)
)
AS SELECT
    company_id,
    subscription_tier,
    service_name,
    toStartOfHour(timestamp) AS hour,
    toInt64(sum(sign)) AS requests,
    toInt64(sum(sign * toInt64(data_points_consumed))) AS data_points,
    sum(sign * usage_tracking.processing_time_ms) AS processing_time_ms,
    sum(sign * revenue_attributed) AS revenue
FROM usage_tracking
GROUP BY
    company_id,
    subscription_tier,
    service_name,
    hour;

-- usage_hourly_store
CREATE TABLE usage_hourly_store
(
    `company_id` String,
    `subscription_tier` LowCardinality(String),
    `service_name` LowCardinality(String),
    `hour` DateTime('UTC') CODEC(Delta(4), LZ4),
    `requests` SimpleAggregateFunction(sum, Int64),
    `data_points` SimpleAggregateFunction(sum, Int64),
    `processing_time_ms` SimpleAggregateFunction(sum, Decimal(38, 3)),
    `revenue` SimpleAggregateFunction(sum, Decimal(38, 6))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (company_id, hour, subscription_tier, service_name)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192
COMMENT 'Partial sums; query usage_analytics_hourly';

-- usage_rechecks
CREATE TABLE usage_rechecks
(
    `topic` LowCardinality(String),
    `partition` UInt16,
    `from_offset` Int64,
    `to_offset` Int64 COMMENT 'Exclusive',
    `reason` LowCardinality(String) COMMENT 'rows_found, unknown or doubled',
    `not_before` DateTime64(3, 'UTC') COMMENT 'By the clock of this server, nothing is judged earlier',
    `done` UInt8 COMMENT '1: it was compared',
    `queued_at` DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(done)
ORDER BY (topic, partition, from_offset, to_offset, reason, not_before)
TTL toDateTime(queued_at) + toIntervalDay(30)
SETTINGS index_granularity = 8192
COMMENT 'Totals to be compared with their rows';

-- usage_tracking
CREATE TABLE usage_tracking
(
    `event_id` String COMMENT 'CloudEvents id',
    `event_source` LowCardinality(String) COMMENT 'CloudEvents source',
    `sign` Int8 DEFAULT 1 COMMENT '1: usage; -1: takes back the usage that voids_source and voids_id name',
    `user_id` String,
    `company_id` String,
    `timestamp` DateTime64(3, 'UTC') COMMENT 'When the usage happened' CODEC(Delta(8), LZ4),
    `subscription_tier` LowCardinality(String),
    `service_name` LowCardinality(String),
    `api_endpoint` LowCardinality(String),
    `data_points_consumed` UInt32,
    `processing_time_ms` Decimal(18, 3),
    `billing_period` LowCardinality(String) COMMENT 'YYYY-MM',
    `revenue_attributed` Decimal(18, 6),
    `voids_source` LowCardinality(String) DEFAULT '',
    `voids_id` String DEFAULT '',
    `_topic` LowCardinality(String),
    `_partition` UInt16,
    `_offset` Int64,
    `_insert_by` DateTime64(3, 'UTC'),
    INDEX deadline _insert_by TYPE minmax GRANULARITY 1,
    INDEX offset_range _offset TYPE minmax GRANULARITY 1,
    CONSTRAINT in_time CHECK _insert_by >= now64(3)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (company_id, user_id, timestamp, event_id)
TTL toDateTime(timestamp) + toIntervalYear(2)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, index_granularity = 8192
COMMENT 'Usage events, one row each';

-- usage_writers
CREATE TABLE usage_writers
(
    `topic` LowCardinality(String),
    `partitions` UInt32 COMMENT 'How many the topic had',
    `group` LowCardinality(String) COMMENT 'Consumer group',
    `writer` String COMMENT 'Random id of the process',
    `first_seen` DateTime64(3, 'UTC'),
    `last_seen` DateTime64(3, 'UTC'),
    `gone` UInt8 COMMENT '1: it has stopped, and its lease with it'
)
ENGINE = ReplacingMergeTree(last_seen)
ORDER BY (topic, partitions, group, writer)
TTL toDateTime(last_seen) + toIntervalDay(30)
SETTINGS index_granularity = 8192
COMMENT 'Processes that write to usage_tracking';

