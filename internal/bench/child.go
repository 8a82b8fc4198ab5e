package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/kafka"
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

// memoryLimit is the one the service sets at its default settings.
const memoryLimit = 448 << 20

// Run consumes until ctx ends.
func (c Child) Run(ctx context.Context) (err error) {
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
	debug.SetMemoryLimit(memoryLimit)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	web := &http.Server{Addr: c.Metrics, Handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = web.ListenAndServe() // until it is closed
	}()
	defer func() {
		_ = web.Close()
		<-served
	}()

	transport := &kafkago.Transport{}
	defer transport.CloseIdleConnections()
	group := kafka.Config{
		Name: "usage", Brokers: strings.Split(c.Brokers, ","), Transport: transport, Group: c.Group, Topics: []string{c.Topic}, Logger: c.Log,
	}
	switch c.Kind {
	case Counted:
		return c.count(ctx, group, registry)
	case Plain:
		return c.increment(ctx, group)
	default:
		return c.insert(ctx, group)
	}
}

// insert writes rows.
func (c Child) insert(ctx context.Context, group kafka.Config) (err error) {
	o, err := chgo.ParseDSN(c.DSN)
	if err != nil {
		return fmt.Errorf("read the DSN: %w", err)
	}
	store, err := clickhouse.Open(ctx, clickhouse.Config{Options: o, Logger: c.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var handler kafka.BatchHandler = &unguarded{store: store, blocks: make(chan *clickhouse.Block, 4)}
	if c.Kind == Guarded {
		handler = consumers.NewUsage(store, consumers.UsageConfig{})
	}
	return kafka.NewGroup(group, handler).Run(ctx)
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
	clock     kafka.Clock
	rejected  int
}

func (p *unguardedPartition) Begin() kafka.Batch {
	return &unguardedBatch{partition: p}
}

func (p *unguardedPartition) End(batch kafka.Batch) {
	b, ok := batch.(*unguardedBatch)
	if !ok || b.block == nil {
		return
	}
	b.block.Reset()
	select {
	case p.usage.blocks <- b.block:
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
	if err := b.partition.decoder.Decode(r, b.clock.Now(), &b.usage); err != nil {
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

func (p *unguardedPartition) Write(ctx context.Context, batch kafka.Batch, r kafka.Range) error {
	b, ok := batch.(*unguardedBatch)
	if !ok {
		return fmt.Errorf("write usage: not a batch of this benchmark: %T", batch)
	}
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
