package service

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/internal/config"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// Tasks is what tasks need of an installation.
type Tasks struct {
	Store   *task.Store
	Replay  *replay.Kind
	Usage   *clickhouse.Store // nil: no address of ClickHouse is set
	Tenants *postgres.Store
	Client  *kafka.Client
	Log     *slog.Logger

	cfg     *config.Config
	closers []func() error
}

// taskTimeout bounds one look-up in Postgres.
const taskTimeout = time.Minute

// Kinds are the kinds of tasks there are.
func (w *Tasks) Kinds() map[string]task.Kind {
	return map[string]task.Kind{task.Replay: w.Replay}
}

// OpenTasks opens the stores that tasks need. ClickHouse is opened where its address is set.
func OpenTasks(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *Tasks, err error) {
	w := &Tasks{cfg: cfg, Log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		return nil, err
	}
	w.Client = client
	w.closers = append(w.closers, func() error { disconnect(); return nil })
	if w.Tenants, err = OpenPostgres(ctx, cfg, taskTimeout, log); err != nil {
		return nil, err
	}
	w.closers = append(w.closers, func() error { w.Tenants.Close(); return nil })
	if w.Store, err = opened(task.Open(ctx, task.Config{DSN: cfg.PostgresDSN.Reveal(), Logger: log})); err != nil {
		return nil, err
	}
	w.closers = append(w.closers, func() error { w.Store.Close(); return nil })
	if cfg.ClickHouseDSN != "" {
		if w.Usage, err = OpenClickHouse(ctx, cfg, log); err != nil {
			return nil, err
		}
		w.closers = append(w.closers, w.Usage.Close)
	}
	key, err := w.Store.Key(ctx)
	if err != nil {
		return nil, err
	}
	w.Replay = replay.New(replay.Config{
		Client: w.Client, TopicPrefix: cfg.TopicPrefix, GroupPrefix: cfg.GroupPrefix,
		Usage: w.Usage, Tenants: w.Tenants, Key: key,
		FutureTolerance: exactly(cfg.FutureTolerance), BatchInterval: exactly(cfg.UsageBatchInterval),
		Sources: replaySources(cfg), Logger: log,
	})
	return w, nil
}

// replaySources opens the sources of a replay beside the log, by their kind.
func replaySources(*config.Config) map[string]replay.OpenSource {
	return map[string]replay.OpenSource{replay.SourceFile: replay.OpenFile}
}

// Close closes the stores, the last one first.
func (w *Tasks) Close() error {
	var all error
	for i := len(w.closers) - 1; i >= 0; i-- {
		all = errors.Join(all, w.closers[i]())
	}
	w.closers = nil
	return all
}
