-- Offsets whose totals are to be compared with their rows: an insert of unknown outcome was settled, or rows that stood
-- there twice were removed. The service reads them every few seconds and corrects what is wrong.

-- +goose NO TRANSACTION
-- +goose Up
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS usage_rechecks
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
-- Of equal entries one is left, a finished one if there is any.
ENGINE = ReplacingMergeTree(done)
ORDER BY (topic, partition, from_offset, to_offset, reason, not_before)
TTL toDateTime(queued_at) + INTERVAL 30 DAY
COMMENT 'Totals to be compared with their rows';
-- +goose StatementEnd
