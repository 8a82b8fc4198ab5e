-- Usage rows: one per event, written by the usage consumer alone.
--
-- Every statement says IF NOT EXISTS: ClickHouse has no transactional DDL, so a migration that was killed half way
-- is simply run again. There are no Down sections: a table is never given up by a command, only by an operator.

-- +goose NO TRANSACTION
-- +goose Up
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS usage_tracking
(
    -- event_source and event_id together are the identity of the event.
    `event_id` String COMMENT 'CloudEvents id',
    `event_source` LowCardinality(String) COMMENT 'CloudEvents source',
    `user_id` String,
    `company_id` String,
    `timestamp` DateTime64(3, 'UTC') COMMENT 'When the usage happened' CODEC(Delta, LZ4),
    `subscription_tier` LowCardinality(String),
    `service_name` LowCardinality(String),
    `api_endpoint` LowCardinality(String),
    `data_points_consumed` UInt32,
    `processing_time_ms` Decimal(18, 3),
    `billing_period` LowCardinality(String) COMMENT 'YYYY-MM',
    `revenue_attributed` Decimal(18, 6),

    -- Where the event stands in the log. Together they are unique, too.
    `_topic` LowCardinality(String),
    `_partition` UInt16,
    `_offset` Int64,

    -- The latest moment, by this server's clock, at which the row could be inserted. A request that was held up
    -- on its way (a stopped process, a stuck proxy) and arrives after its sender has given up and decided anew
    -- must not land: the constraint refuses it. It is also what tells two copies of one offset apart.
    `_insert_by` DateTime64(3, 'UTC'),

    CONSTRAINT in_time CHECK _insert_by >= now64(3),

    -- Both find the rows of a batch again (recovery, verify). Parts in which batches of many hours are merged are
    -- skipped by the deadline, because all of theirs are over: recovery reads what is young, however large the table is.
    -- The offset alone skips well only in parts that hold few batches.
    INDEX deadline _insert_by TYPE minmax GRANULARITY 1,
    INDEX offset_range _offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (company_id, user_id, timestamp, event_id)
TTL toDateTime(timestamp) + INTERVAL 2 YEAR
SETTINGS
    -- The log of insert tokens is off by default (0) in a table that is not replicated. A token must outlive the
    -- longest time between a block's first attempt and its last: insert deadline + takeover of the partition,
    -- about two minutes. A healthy table takes some tens of blocks a second, so 10,000 tokens cover that with room,
    -- and cost 2 MB of memory. A token that is forgotten nevertheless does no harm here: recovery counts the
    -- rows of the range. In the stores behind the views it would; verify finds and mends that.
    non_replicated_deduplication_window = 10000,
    -- Drop a whole part once all its rows are too old, instead of rewriting parts every day to cut rows off their
    -- edge. A row may so stay up to a month longer than two years.
    ttl_only_drop_parts = 1
COMMENT 'Usage events, one row each';
-- +goose StatementEnd
