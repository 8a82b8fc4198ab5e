-- Every correction of a total: announced before it is sent, and what became of it. Written by `tenantflow verify --repair`
-- and by the service, when it finds totals of an insert of unknown outcome wrong. internal/totals/claim.go says how the
-- rows keep two corrections of one key apart.

-- +goose NO TRANSACTION
-- +goose Up
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS usage_corrections
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
TTL toDateTime(written_at) + INTERVAL 1 YEAR
SETTINGS ttl_only_drop_parts = 1
COMMENT 'Corrections of totals';
-- +goose StatementEnd
