package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/totals"
	"tenantflow/sinks/clickhouse"
)

// runUsage consumes usage events into ClickHouse until ctx ends.
func runUsage(ctx context.Context, s *service, metrics prometheus.Registerer) error {
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

	metrics.MustRegister(store.Collector())
	stopWatching, err := watchTotals(ctx, s, metrics, store)
	if err != nil {
		return err
	}
	defer stopWatching()

	handler := consumers.NewUsage(store, consumers.UsageConfig{
		Limits:      events.UsageLimits{FutureTolerance: exactly(cfg.FutureTolerance), MaxAge: events.DefaultMaxAge},
		FilterBytes: int64(cfg.UsageFilterMemory),
		Registry:    metrics,

		Group:          cfg.GroupPrefix + "." + name,
		StaleProducers: cfg.UsageStaleProducers,
	})
	return s.consume(ctx, metrics, name, events.TopicUsage, batching{cfg.UsageBatchRows, cfg.UsageBatchInterval, cfg.UsageMemory}, handler)
}

// watchTotals starts to correct the totals of inserts that had to be settled, beside the consumer. stop ends it.
func watchTotals(ctx context.Context, s *service, metrics prometheus.Registerer, store *clickhouse.Store) (stop func(), err error) {
	options, err := s.cfg.ClickHouseOptions()
	if err != nil {
		return nil, fmt.Errorf("reading %sCLICKHOUSE_DSN: %w", config.Prefix, err)
	}
	transport, err := s.cfg.KafkaTransport()
	if err != nil {
		return nil, err
	}
	checker, err := totals.Open(totals.Config{
		Client:        &kafka.Client{Addr: kafka.TCP(s.cfg.KafkaBrokers...), Transport: transport},
		ClickHouse:    options,
		Topic:         s.cfg.TopicPrefix + events.TopicUsage,
		Group:         s.cfg.GroupPrefix + ".usage",
		InsertTimeout: s.cfg.UsageInsertTimeout,
		Logger:        s.log,
	})
	if err != nil {
		transport.CloseIdleConnections()
		return nil, err
	}
	watcher := totals.NewWatcher(checker, store, totals.WatchConfig{Registry: metrics})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watcher.Run(ctx)
	}()
	return func() {
		cancel()
		<-ended
		if err := checker.Close(); err != nil {
			s.log.Warn("closing ClickHouse", "error", err)
		}
		transport.CloseIdleConnections()
	}, nil
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
