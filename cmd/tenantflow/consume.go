package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
)

// batching is how large and how old a consumer's batches get, and what all of them may hold.
type batching struct {
	rows     int
	interval time.Duration
	memory   config.Bytes
}

// consume is the consumer name, a member of its group, until ctx ends.
func (s *service) consume(ctx context.Context, metrics prometheus.Registerer, name, topic string, b batching, handler kafka.BatchHandler) error {
	cfg := s.cfg
	dialer, err := cfg.KafkaDialer()
	if err != nil {
		return err
	}
	transport, err := cfg.KafkaTransport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	return kafka.NewGroup(kafka.Config{
		Name:             name,
		Brokers:          cfg.KafkaBrokers,
		Dialer:           dialer,
		Transport:        transport,
		Group:            cfg.GroupPrefix + "." + name,
		Topics:           []string{cfg.TopicPrefix + topic},
		SessionTimeout:   cfg.KafkaSessionTimeout,
		RebalanceTimeout: cfg.KafkaRebalanceTimeout,
		Drain:            drain(cfg),
		BatchRows:        b.rows,
		BatchInterval:    b.interval,
		Budget:           kafka.NewBudget(int64(b.memory)),
		OutOfRange:       kafka.OutOfRange(cfg.OffsetOutOfRange),
		Metrics:          kafka.NewMetrics(metrics, name),
		Health:           s.health,
		Logger:           s.log,
	}, handler).Run(ctx)
}

// exactly makes a duration for options where 0 means "the default": what is set to 0 is none at all.
func exactly(d time.Duration) time.Duration { return max(d, time.Nanosecond) }

// drain is how long a batch under way may take to finish when its partition is taken away or the process stops: an
// insert and what comes around it. It ends before the group gives the partition away, before the rebalance goes on
// without this member, and before the process gives up stopping.
func drain(cfg *config.Config) time.Duration {
	const around, margin = 5 * time.Second, time.Second
	return min(cfg.UsageInsertTimeout+around, cfg.KafkaSessionTimeout-margin, cfg.KafkaRebalanceTimeout-margin, cfg.ShutdownTimeout-margin)
}
