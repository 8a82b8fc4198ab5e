package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"strings"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
	"tenantflow/internal/service"
	"tenantflow/internal/telemetry"
	"tenantflow/sinks/clickhouse"
)

// A ChildKind is what a child does with the events.
type ChildKind string

// The kinds of children.
const (
	// Guarded is the consumer as the service runs it. It is there to be profiled.
	Guarded ChildKind = "guarded"
	// Unguarded is made of the same parts - runtime, fetching, decoding, blocks, inserts - without what makes the
	// effect exact: no intents, no look-ups, no memory of identities. Together with tables that keep no log of tokens
	// and check no deadline it is an ordinary at-least-once consumer, and an optimistic one: it commits when it is
	// idle only.
	Unguarded ChildKind = "unguarded"
	// Counted is the quota consumer as the service runs it. It is there to be profiled.
	Counted ChildKind = "counted"
	// Plain counts as people do without this service: for each event INCRBY of the user's counter and EXPIRE, all of a
	// batch in one pipeline. Runtime, fetching and decoding are the service's. What is delivered twice is counted twice.
	Plain ChildKind = "plain"
)

// Child is a consumer in a process of its own.
type Child struct {
	Kind                  ChildKind
	Brokers, Topic, Group string
	DSN                   string // of ClickHouse, for rows
	Redis, Postgres       string // for counts
	Metrics               string // HOST:PORT of its metrics page
	Profile               string // file for a CPU profile; empty: none
	Log                   *slog.Logger
}

// Run consumes until ctx ends.
func (c Child) Run(ctx context.Context) error {
	if c.Profile != "" {
		f, err := os.Create(c.Profile)
		if err != nil {
			return fmt.Errorf("make the profile: %w", err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("begin the profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	part := service.Part{Name: "quota", Stores: []config.Store{config.Kafka, config.Dragonfly}, Run: increment}
	if c.Kind == Unguarded {
		part = service.Part{Name: "usage", Stores: []config.Store{config.Kafka, config.ClickHouse}, Run: insert}
	}
	parts := []service.Part{part}
	if name, own := map[ChildKind]string{Guarded: "usage", Counted: "quota"}[c.Kind]; own {
		var err error
		if parts, _, err = service.Choose(service.Parts(), []string{name}); err != nil {
			return err
		}
	}
	cfg, err := config.Load([]string{
		"TENANTFLOW_KAFKA_BROKERS=" + c.Brokers,
		"TENANTFLOW_TOPIC_PREFIX=" + strings.TrimSuffix(c.Topic, events.TopicUsage),
		"TENANTFLOW_GROUP_PREFIX=" + strings.TrimSuffix(c.Group, "."+parts[0].Name),
		"TENANTFLOW_CLICKHOUSE_DSN=" + c.DSN,
		"TENANTFLOW_DRAGONFLY_URL=" + c.Redis,
		"TENANTFLOW_POSTGRES_DSN=" + c.Postgres,
		"TENANTFLOW_HTTP_ADDR=" + c.Metrics,
	}, service.Stores(parts)...)
	if err != nil {
		return err
	}
	s, err := service.New(cfg, c.Log, telemetry.Build{}, parts)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// insert writes rows without any guarantee.
func insert(ctx context.Context, r *service.Running) (err error) {
	store, err := service.OpenClickHouse(ctx, r.Config, r.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return r.Consume(ctx, events.TopicUsage, service.Batching{Rows: r.Config.UsageBatchRows, Interval: r.Config.UsageBatchInterval, Memory: r.Config.UsageMemory},
		&unguarded{store: store, blocks: make(chan *clickhouse.Block, 4)})
}

// unguarded is a handler that inserts what it reads.
type unguarded struct {
	store  *clickhouse.Store
	blocks chan *clickhouse.Block
}

func (u *unguarded) Open(_ context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	return &unguardedPartition{Partition: p, usage: u, decoder: events.NewUsageDecoder(events.UsageLimits{})}, nil
}

type unguardedPartition struct {
	*kafka.Partition
	usage   *unguarded
	decoder *events.UsageDecoder
}

type unguardedBatch struct {
	partition *unguardedPartition
	block     *clickhouse.Block
	usage     events.Usage
	rejected  int
}

func (p *unguardedPartition) Begin() kafka.Batch {
	return &unguardedBatch{partition: p}
}

func (b *unguardedBatch) Release() {
	if b.block == nil {
		return
	}
	b.block.Reset()
	select {
	case b.partition.usage.blocks <- b.block:
	default:
	}
	b.block = nil
}

func (b *unguardedBatch) rows() *clickhouse.Block {
	if b.block == nil {
		select {
		case b.block = <-b.partition.usage.blocks:
		default:
			b.block = clickhouse.NewBlock()
		}
	}
	return b.block
}

func (b *unguardedBatch) Add(r *events.Record) {
	if err := b.partition.decoder.Decode(r, r.Time, &b.usage); err != nil {
		b.rejected++
		return
	}
	b.rows().Append(&b.usage, 0, r.Offset)
}

func (b *unguardedBatch) Close() {}

func (b *unguardedBatch) Rows() int {
	if b.block == nil {
		return 0
	}
	return b.block.Len()
}

func (b *unguardedBatch) Bytes() int64 {
	if b.block == nil {
		return 0
	}
	return b.block.Bytes()
}

func (b *unguardedBatch) Write(ctx context.Context, r kafka.Range) error {
	p := b.partition
	if b.rejected > 0 {
		return fmt.Errorf("write usage: %d events of %s were not understood; the benchmark publishes none of these", b.rejected, r)
	}
	b.rows()
	in := b.block.Intent(p.Topic(), p.ID(), r.From, r.To, 0, b.block.Len())
	if len(in.Parts) == 0 {
		return nil
	}
	release, err := p.usage.store.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	in.InsertBy = p.usage.store.Deadline()
	return p.usage.store.Insert(ctx, in, b.block, 0, b.block.Len())
}
