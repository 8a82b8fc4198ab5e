package bench

import (
	"context"
	"errors"
	"fmt"
)

// kafkaEngine is ClickHouse's own way from Kafka into a table: a table of the engine Kafka and a view that moves its
// rows. It reads the value of a record only. What it promises is at least once, without a check of duplicates.
//
// Two consumers, each in a thread of its own, and blocks of a million rows: more of either is not faster on two
// processors. _insert_by lies far ahead, for the table's constraint.
func (w *world) kafkaEngine() contender {
	return contender{name: KafkaEngine, members: 2, start: func(ctx context.Context, d dataset, database, group string) (*running, error) {
		columns := "event_id, event_source, user_id, company_id, timestamp, subscription_tier, service_name, api_endpoint, " +
			"data_points_consumed, processing_time_ms, billing_period, revenue_attributed"
		create := fmt.Sprintf(`CREATE TABLE %[1]s.kafka_usage
(
    event_id String, event_source LowCardinality(String), user_id String, company_id String, timestamp DateTime64(3, 'UTC'),
    subscription_tier LowCardinality(String), service_name LowCardinality(String), api_endpoint LowCardinality(String),
    data_points_consumed UInt32, processing_time_ms Decimal(18, 3), billing_period LowCardinality(String), revenue_attributed Decimal(18, 6)
)
ENGINE = Kafka
SETTINGS kafka_broker_list = '%[2]s', kafka_topic_list = '%[3]s', kafka_group_name = '%[4]s', kafka_format = 'JSONEachRow',
    kafka_num_consumers = 2, kafka_thread_per_consumer = 1, kafka_max_block_size = 1048576, kafka_poll_max_batch_size = 262144`,
			database, w.kafka.Addr(), d.topic(), group)
		if _, err := w.clickhouse.Query(ctx, create); err != nil {
			return nil, err
		}
		feed := fmt.Sprintf(`CREATE MATERIALIZED VIEW %[1]s.kafka_feed TO %[1]s.usage_tracking AS
SELECT %[2]s, _topic, toUInt16(_partition) AS _partition, toInt64(_offset) AS _offset, toDateTime64(now() + INTERVAL 1 YEAR, 3, 'UTC') AS _insert_by
FROM %[1]s.kafka_usage`, database, columns)
		if _, err := w.clickhouse.Query(ctx, feed); err != nil {
			return nil, err
		}
		stop := func() error {
			_, first := w.clickhouse.Query(context.WithoutCancel(ctx), "DROP TABLE "+database+".kafka_feed SYNC")
			_, second := w.clickhouse.Query(context.WithoutCancel(ctx), "DROP TABLE "+database+".kafka_usage SYNC")
			return errors.Join(first, second)
		}
		return &running{stop: stop}, nil
	}}
}
