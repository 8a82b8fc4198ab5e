package service

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/clickhouse"
)

// decideVoids decides requests to take usage back until ctx ends. It needs ClickHouse, which the part does not: where there is no address, or
// no answer, these requests wait, and everything else goes on.
func (r *Running) decideVoids(ctx context.Context, tenants consumers.TenantConfig, store consumers.VoidStore, results *kafka.Results,
	client *kafkago.Client, notes *notes) error {
	cfg := r.Config
	log := kafka.NewStoredLog(client, r.service.group("usage"), cfg.TopicPrefix+events.TopicUsage)
	defer log.Close()
	voids := consumers.VoidConfig{
		Tenants: tenants, Store: store, Log: log, Logger: r.Log, Metrics: consumers.NewVoidMetrics(r),
		Note: func(note string) { notes.say("voids", note) },
	}
	if cfg.ClickHouseDSN != "" {
		var rows *clickhouse.Store
		defer func() {
			if rows == nil {
				return
			}
			if err := rows.Close(); err != nil {
				r.Log.Warn("closing ClickHouse", slog.Any("error", err))
			}
		}()
		voids.Rows = func(ctx context.Context) (consumers.UsageRows, error) {
			opened, err := OpenClickHouse(ctx, cfg, r.Log)
			if err != nil {
				return nil, err
			}
			rows = opened
			return rows, nil
		}
	}
	consumers.NewVoids(voids, results).Run(ctx)
	return nil
}

// notes are what several of a part's own parts have to say of it.
type notes struct {
	say func(of, note string)
}

// notesOf joins the notes on a part.
func notesOf(tracker *health.Tracker, part string) *notes {
	var mu sync.Mutex
	by := map[string]string{}
	return &notes{say: func(of, note string) {
		mu.Lock()
		defer mu.Unlock()
		if by[of] = note; note == "" {
			delete(by, of)
		}
		var lines []string
		for _, of := range slices.Sorted(maps.Keys(by)) {
			lines = append(lines, by[of])
		}
		tracker.Note(part, strings.Join(lines, "; "))
	}}
}
