package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/redrive"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// A taskWorld is what tasks need of an installation.
type taskWorld struct {
	cfg    *config.Config
	log    *slog.Logger
	client *kafka.Client
	store  *task.Store
	usage  *clickhouse.Store // nil: no address of ClickHouse is set
	key    events.ReplayKey
	replay *replay.Kind

	tenants *postgres.Store
	closers []func() error
}

// kinds are the kinds of tasks there are.
func (w *taskWorld) kinds() map[string]task.Kind {
	return map[string]task.Kind{task.Replay: w.replay, task.Redrive: w.redrive(nil)}
}

// redrive makes the kind of tasks that redrive dead letters. refused, if set, is called for letters that stay open.
func (w *taskWorld) redrive(refused func(events.Origin, redrive.Verdict)) *redrive.Kind {
	return redrive.New(redrive.Config{
		Client: w.client, TopicPrefix: w.cfg.TopicPrefix, Usage: w.usage, Letters: w.tenants, Key: w.key,
		FutureTolerance: exactly(w.cfg.FutureTolerance), TenantFuture: min(exactly(w.cfg.FutureTolerance), consumers.DefaultTenantFuture),
		Refused: refused, Logger: w.log,
	})
}

// openTaskWorld opens the stores. ClickHouse is opened where its address is set.
func openTaskWorld(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *taskWorld, err error) {
	w := &taskWorld{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	transport, err := cfg.KafkaTransport()
	if err != nil {
		return nil, err
	}
	w.closers = append(w.closers, func() error { transport.CloseIdleConnections(); return nil })
	w.client = &kafka.Client{Addr: kafka.TCP(cfg.KafkaBrokers...), Transport: transport}
	if w.tenants, err = postgres.Open(ctx, postgres.Config{DSN: cfg.PostgresDSN.Reveal(), Timeout: time.Minute, Logger: log}); err != nil {
		return nil, err
	}
	w.closers = append(w.closers, func() error { w.tenants.Close(); return nil })
	if w.store, err = task.Open(ctx, task.Config{DSN: cfg.PostgresDSN.Reveal(), Logger: log}); err != nil {
		return nil, err
	}
	w.closers = append(w.closers, func() error { w.store.Close(); return nil })
	if cfg.ClickHouseDSN.Reveal() != "" {
		options, err := cfg.ClickHouseOptions()
		if err != nil {
			return nil, fmt.Errorf("reading %sCLICKHOUSE_DSN: %w", config.Prefix, err)
		}
		if w.usage, err = clickhouse.Open(ctx, clickhouse.Config{Options: options, InsertTimeout: cfg.UsageInsertTimeout, Logger: log}); err != nil {
			return nil, err
		}
		w.closers = append(w.closers, w.usage.Close)
	}
	if w.key, err = w.store.Key(ctx); err != nil {
		return nil, err
	}
	w.replay = replay.New(replay.Config{
		Client: w.client, TopicPrefix: cfg.TopicPrefix, GroupPrefix: cfg.GroupPrefix,
		Usage: w.usage, Tenants: w.tenants, Key: w.key,
		FutureTolerance: exactly(cfg.FutureTolerance), BatchInterval: exactly(cfg.UsageBatchInterval),
		Sources: replaySources(cfg), Logger: log,
	})
	return w, nil
}

// replaySources opens the sources of a replay beside the log, by their kind.
func replaySources(*config.Config) map[string]replay.OpenSource {
	return map[string]replay.OpenSource{replay.SourceFile: replay.OpenFile}
}

// close closes the stores, the last one first.
func (w *taskWorld) close() error {
	var all error
	for i := len(w.closers) - 1; i >= 0; i-- {
		all = errors.Join(all, w.closers[i]())
	}
	w.closers = nil
	return all
}
