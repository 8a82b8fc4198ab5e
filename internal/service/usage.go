package service

import (
	"context"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/totals"
	"tenantflow/sinks/clickhouse"
)

// runUsage consumes usage events into ClickHouse until ctx ends.
func runUsage(ctx context.Context, r *Running) error {
	cfg := r.Config
	store, err := OpenClickHouse(ctx, cfg, r.Log)
	if err != nil {
		return err
	}
	defer func() {
		if err := store.Close(); err != nil {
			r.Log.Warn("closing ClickHouse", "error", err)
		}
	}()

	r.MustRegister(store.Collector())
	stopWatching, err := watchTotals(ctx, r, store)
	if err != nil {
		return err
	}
	defer stopWatching()

	handler := consumers.NewUsage(store, consumers.UsageConfig{
		Limits:      UsageLimits(cfg),
		FilterBytes: int64(cfg.UsageFilterMemory),
		Registry:    r,

		Group:          r.service.group(r.part),
		StaleProducers: cfg.UsageStaleProducers,
	})
	return r.Consume(ctx, events.TopicUsage, Batching{cfg.UsageBatchRows, cfg.UsageBatchInterval, cfg.UsageMemory}, handler)
}

// watchTotals starts to correct the totals of inserts that had to be settled, beside the consumer. stop ends it.
func watchTotals(ctx context.Context, r *Running, store *clickhouse.Store) (stop func(), err error) {
	options, err := r.Config.ClickHouseOptions()
	if err != nil {
		return nil, err
	}
	client, disconnect, err := r.Config.KafkaClient()
	if err != nil {
		return nil, err
	}
	checker, err := totals.Open(totals.Config{
		Client:        client,
		ClickHouse:    options,
		Topic:         r.Config.TopicPrefix + events.TopicUsage,
		Group:         r.service.group(r.part),
		InsertTimeout: r.Config.UsageInsertTimeout,
		Logger:        r.Log,
	})
	if err != nil {
		disconnect()
		return nil, err
	}
	watcher := totals.NewWatcher(checker, store, totals.WatchConfig{Registry: r})
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
			r.Log.Warn("closing ClickHouse", "error", err)
		}
		disconnect()
	}, nil
}
