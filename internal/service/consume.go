package service

import (
	"context"
	"time"

	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
)

// Batching is how large and how old a consumer's batches get, and what all of them may hold.
type Batching struct {
	Rows     int
	Interval time.Duration
	Memory   config.Bytes
}

// Consume is a member of the part's consumer group until ctx ends. topic is without prefix.
func (r *Running) Consume(ctx context.Context, topic string, b Batching, handler kafka.BatchHandler) error {
	cfg := r.Config
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
		Name:             r.part,
		Brokers:          cfg.KafkaBrokers,
		Dialer:           dialer,
		Transport:        transport,
		Group:            r.service.group(r.part),
		Topics:           []string{cfg.TopicPrefix + topic},
		SessionTimeout:   cfg.KafkaSessionTimeout,
		RebalanceTimeout: cfg.KafkaRebalanceTimeout,
		Drain:            drain(cfg),
		BatchRows:        b.Rows,
		BatchInterval:    b.Interval,
		Budget:           kafka.NewBudget(int64(b.Memory)),
		OutOfRange:       kafka.OutOfRange(cfg.OffsetOutOfRange),
		Metrics:          kafka.NewMetrics(r, r.part),
		Health:           r.service.health,
		Logger:           r.Log,
		Tracer:           r.service.tracer,
	}, handler).Run(ctx)
}

// group is the name of a part's consumer group.
func (s *Service) group(part string) string { return s.cfg.GroupPrefix + "." + part }

// drain is how long a batch under way may take to finish when its partition is taken away or the process stops: an
// insert and what comes around it. It ends before the group gives the partition away, before the rebalance goes on
// without this member, and before the process gives up stopping.
func drain(cfg *config.Config) time.Duration {
	const around, margin = 5 * time.Second, time.Second
	return min(cfg.UsageInsertTimeout+around, cfg.KafkaSessionTimeout-margin, cfg.KafkaRebalanceTimeout-margin, cfg.ShutdownTimeout-margin)
}
