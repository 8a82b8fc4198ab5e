package service

import (
	"context"
	"errors"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/redrive"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// Tasks is what tasks need of an installation, opened.
type Tasks struct {
	Client  *kafkago.Client
	Store   *task.Store
	Tenants *postgres.Store
	Usage   *clickhouse.Store // nil: no address of ClickHouse is set
	Key     events.ReplayKey
	Replay  *replay.Kind
	Redrive *redrive.Kind
	Log     *slog.Logger

	closers []func() error
}

// taskTimeout bounds one look-up in Postgres: a chunk of a replay asks about many events at once.
const taskTimeout = time.Minute

// OpenTasks opens the stores. ClickHouse is opened where its address is set. Close the result.
func OpenTasks(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *Tasks, err error) {
	t := &Tasks{Log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		return nil, err
	}
	t.Client, t.closers = client, append(t.closers, func() error { disconnect(); return nil })
	if t.Tenants, err = OpenPostgres(ctx, cfg, taskTimeout, log); err != nil {
		return nil, err
	}
	t.closers = append(t.closers, func() error { t.Tenants.Close(); return nil })
	if t.Store, err = opened(task.Open(ctx, task.Config{DSN: cfg.PostgresDSN.Reveal(), Logger: log})); err != nil {
		return nil, err
	}
	t.closers = append(t.closers, func() error { t.Store.Close(); return nil })
	if cfg.ClickHouseDSN != "" {
		if t.Usage, err = openClickHouse(ctx, cfg, log, clickhouse.Beside); err != nil {
			return nil, err
		}
		t.closers = append(t.closers, t.Usage.Close)
	}
	if t.Key, err = t.Tenants.ReplayKey(ctx); err != nil {
		return nil, err
	}
	t.Replay = replay.New(replay.Config{
		Client: t.Client, TopicPrefix: cfg.TopicPrefix, GroupPrefix: cfg.GroupPrefix,
		Usage: t.Usage, Tenants: t.Tenants, Key: t.Key,
		FutureTolerance: UsageLimits(cfg).FutureTolerance, TenantFuture: tenantFuture(cfg), BatchInterval: exactly(cfg.UsageBatchInterval),
		Sources: replaySources(), Logger: log,
	})
	t.Redrive = redrive.New(redrive.Config{
		Client: t.Client, TopicPrefix: cfg.TopicPrefix, Usage: t.Usage, Letters: t.Tenants, Key: t.Key,
		FutureTolerance: UsageLimits(cfg).FutureTolerance, TenantFuture: tenantFuture(cfg),
		Logger: log,
	})
	return t, nil
}

// replaySources opens the sources of a replay beside the log, by their kind.
func replaySources() map[string]replay.OpenSource {
	return map[string]replay.OpenSource{replay.SourceFile: replay.OpenFile, replay.SourceArchive: replay.OpenArchive}
}

// Kinds are the kinds of tasks there are.
func (t *Tasks) Kinds() map[string]task.Kind {
	return map[string]task.Kind{task.Replay: t.Replay, task.Redrive: t.Redrive}
}

// Close closes the stores, the last one first.
func (t *Tasks) Close() error {
	var all error
	for i := len(t.closers) - 1; i >= 0; i-- {
		all = errors.Join(all, t.closers[i]())
	}
	t.closers = nil
	return all
}
