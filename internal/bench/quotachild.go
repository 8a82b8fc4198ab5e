package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/directory"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// count counts quotas as the service does.
func (c Child) count(ctx context.Context, group kafka.Config, registry prometheus.Registerer) (err error) {
	options, err := redis.ParseURL(c.Redis)
	if err != nil {
		return fmt.Errorf("read the address of Redis: %w", err)
	}
	counts, err := dragonfly.Open(ctx, dragonfly.Config{Options: options, Topic: c.Topic, Logger: c.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, counts.Close()) }()
	users, err := postgres.Open(ctx, postgres.Config{DSN: c.Postgres, Logger: c.Log})
	if err != nil {
		return err
	}
	defer users.Close()
	known := directory.New(directory.Config{Loader: users, Cache: dragonfly.NewCache(counts.Client()), Members: users.Members, Log: c.Log, Metrics: registry})
	defer known.Close()
	followed := make(chan error, 1)
	following, unfollow := context.WithCancel(ctx)
	go func() { followed <- known.Run(following) }()
	defer func() {
		unfollow()
		if e := <-followed; ctx.Err() == nil {
			err = errors.Join(err, e)
		}
	}()

	handler := consumers.NewQuota(consumers.QuotaConfig{
		Session:  func(topic string, partition int) consumers.QuotaSession { return counts.Session(topic, partition) },
		Users:    known,
		Topic:    strings.TrimSuffix(c.Topic, events.TopicUsage) + events.TopicQuota,
		Registry: registry,
	})
	defaults, err := config.Load(nil)
	if err != nil {
		return err
	}
	group.Name, group.BatchRows, group.BatchInterval = "quota", defaults.QuotaBatchRows, defaults.QuotaBatchInterval
	group.Budget = kafka.NewBudget(int64(defaults.QuotaMemory))
	return kafka.NewGroup(group, handler).Run(ctx)
}

// increment counts quotas without any guarantee.
func (c Child) increment(ctx context.Context, group kafka.Config) (err error) {
	options, err := redis.ParseURL(c.Redis)
	if err != nil {
		return fmt.Errorf("read the address of Redis: %w", err)
	}
	options.Protocol, options.DisableIdentity = 2, true
	client := redis.NewClient(options)
	defer func() { err = errors.Join(err, client.Close()) }()
	defaults, err := config.Load(nil)
	if err != nil {
		return err
	}
	group.Name, group.BatchRows, group.BatchInterval = "plain", plainRows, defaults.QuotaBatchInterval
	group.Budget = kafka.NewBudget(int64(defaults.QuotaMemory))
	return kafka.NewGroup(group, plain{client}).Run(ctx)
}

const (
	plainRows = 5000           // events in a pipeline; more are not faster
	plainLife = 72 * time.Hour // of a counter
)

// plain is a handler that increments counters.
type plain struct{ client *redis.Client }

// Open implements kafka.BatchHandler.
func (h plain) Open(_ context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	return &plainPartition{Partition: p, client: h.client, decoder: events.NewUsageDecoder(events.UsageLimits{})}, nil
}

type plainPartition struct {
	*kafka.Partition
	client  *redis.Client
	decoder *events.UsageDecoder
}

type plainBatch struct {
	partition *plainPartition
	keys      []string
	bytes     int64
	usage     events.Usage
	clock     kafka.Clock
	day       int64  // since the Unix epoch
	suffix    string // of that day's keys
	added     int
	rejected  int
}

func (p *plainPartition) Begin() kafka.Batch { return &plainBatch{partition: p} }

func (p *plainPartition) End(kafka.Batch) {}

func (b *plainBatch) Add(r *events.Record) {
	b.added++
	if err := b.partition.decoder.Decode(r, b.clock.Now(), &b.usage); err != nil {
		b.rejected++
		return
	}
	const dayMillis = 24 * 60 * 60 * 1000
	if day := b.usage.Timestamp / dayMillis; day != b.day || b.suffix == "" {
		b.day = day
		b.suffix = "}:" + time.UnixMilli(b.usage.Timestamp).UTC().Format(time.DateOnly)
	}
	key := "quota:{" + string(b.usage.UserID) + b.suffix
	b.keys = append(b.keys, key)
	b.bytes += int64(len(key)) + 16
}

func (b *plainBatch) Close() {}

func (b *plainBatch) Rows() int { return b.added }

func (b *plainBatch) Bytes() int64 { return b.bytes }

func (p *plainPartition) Write(ctx context.Context, batch kafka.Batch, r kafka.Range) error {
	b, ok := batch.(*plainBatch)
	if !ok {
		return fmt.Errorf("count usage: not a batch of this benchmark: %T", batch)
	}
	if b.rejected > 0 {
		return fmt.Errorf("count usage: %d events of %s were not understood; the benchmark publishes none of these", b.rejected, r)
	}
	pipe := p.client.Pipeline()
	for _, key := range b.keys {
		pipe.IncrBy(ctx, key, 1)
		pipe.Expire(ctx, key, plainLife)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("count usage: %w", err)
	}
	return nil
}
