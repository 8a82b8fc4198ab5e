-- Which processes write to usage_tracking, from which topic and with how many partitions. It answers two questions:
-- may an event be stored from another place than its own (another topic, or before partitions were added), and does
-- another consumer group store the same topic here? A few rows for each process.

-- +goose NO TRANSACTION
-- +goose Up
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS usage_writers
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
TTL toDateTime(last_seen) + INTERVAL 30 DAY
COMMENT 'Processes that write to usage_tracking';
-- +goose StatementEnd
