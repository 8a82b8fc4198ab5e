package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/sinks/clickhouse"
)

// runUsage consumes usage events into ClickHouse until ctx ends.
func runUsage(ctx context.Context, s *service) error {
	const name = "usage"
	cfg := s.cfg
	store, err := openClickHouse(ctx, s, name)
	if err != nil || store == nil {
		return err
	}
	defer func() {
		if err := store.Close(); err != nil {
			s.log.Warn("closing ClickHouse", "error", err)
		}
	}()

	dialer, err := cfg.KafkaDialer()
	if err != nil {
		return err
	}
	transport, err := cfg.KafkaTransport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()

	handler := consumers.NewUsage(store, consumers.UsageConfig{
		Limits:      events.UsageLimits{FutureTolerance: cfg.FutureTolerance, MaxAge: events.DefaultMaxAge},
		FilterBytes: int64(cfg.UsageFilterMemory),
		Registry:    s.registry,
	})
	group := consumers.NewGroup(consumers.Config{
		Name:             name,
		Brokers:          cfg.KafkaBrokers,
		Dialer:           dialer,
		Transport:        transport,
		Group:            cfg.GroupPrefix + "." + name,
		Topics:           []string{cfg.TopicPrefix + events.TopicUsage},
		SessionTimeout:   cfg.KafkaSessionTimeout,
		RebalanceTimeout: cfg.KafkaRebalanceTimeout,
		Drain:            drain(cfg),
		BatchRows:        cfg.UsageBatchRows,
		BatchInterval:    cfg.UsageBatchInterval,
		Budget:           consumers.NewBudget(int64(cfg.UsageMemory)),
		OutOfRange:       consumers.OutOfRange(cfg.OffsetOutOfRange),
		Metrics:          consumers.NewMetrics(s.registry, name),
		Health:           s.health,
		Logger:           s.log,
	}, handler)
	return group.Run(ctx)
}

// openClickHouse connects to ClickHouse, and waits for it where it is down: an order in which to start things would be
// one more way to fail. Readiness says meanwhile what it waits for. It gives nil when ctx ended before there was one.
func openClickHouse(ctx context.Context, s *service, part string) (*clickhouse.Store, error) {
	options, err := s.cfg.ClickHouseOptions()
	if err != nil {
		return nil, fmt.Errorf("reading %sCLICKHOUSE_DSN: %w", config.Prefix, err)
	}
	store, err := await(ctx, s, part, "ClickHouse", func(err error) bool { return clickhouse.Classify(err) == clickhouse.Fatal }, func() (*clickhouse.Store, error) {
		return clickhouse.Open(ctx, clickhouse.Config{Options: options, InsertTimeout: s.cfg.UsageInsertTimeout, Logger: s.log})
	})
	if err != nil {
		return nil, errors.Join(err, errors.New("are the address and the password right, and has `tenantflow migrate` been run?"))
	}
	return store, nil
}

// openDelays is how long to wait between two tries of a store that is down.
func openDelays() backoff.BackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}

// drain is how long a batch under way may take to finish when its partition is taken away or the process stops: an
// insert and what comes around it. It ends before the group gives the partition away, before the rebalance goes on
// without this member, and before the process gives up stopping.
func drain(cfg *config.Config) time.Duration {
	const around, margin = 5 * time.Second, time.Second
	return min(cfg.UsageInsertTimeout+around, cfg.KafkaSessionTimeout-margin, cfg.KafkaRebalanceTimeout-margin, cfg.ShutdownTimeout-margin)
}
