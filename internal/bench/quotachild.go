package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/service"
)

// increment counts quotas without any guarantee.
func increment(ctx context.Context, r *service.Running) (err error) {
	options, err := redis.ParseURL(r.Config.DragonflyURL.Reveal())
	if err != nil {
		return fmt.Errorf("read the address of Redis: %w", err)
	}
	options.Protocol, options.DisableIdentity = 2, true
	client := redis.NewClient(options)
	defer func() { err = errors.Join(err, client.Close()) }()
	return r.Consume(ctx, events.TopicUsage, service.Batching{Rows: plainRows, Interval: r.Config.QuotaBatchInterval, Memory: r.Config.QuotaMemory}, plain{client})
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
	day       int64  // since the Unix epoch
	suffix    string // of that day's keys
	added     int
	rejected  int
}

func (p *plainPartition) Begin() kafka.Batch { return &plainBatch{partition: p} }

func (b *plainBatch) Release() {}

func (b *plainBatch) Add(r *events.Record) {
	b.added++
	if err := b.partition.decoder.Decode(r, r.Time, &b.usage); err != nil {
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

func (b *plainBatch) Write(ctx context.Context, r kafka.Range) error {
	if b.rejected > 0 {
		return fmt.Errorf("count usage: %d events of %s were not understood; the benchmark publishes none of these", b.rejected, r)
	}
	pipe := b.partition.client.Pipeline()
	for _, key := range b.keys {
		pipe.IncrBy(ctx, key, 1)
		pipe.Expire(ctx, key, plainLife)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("count usage: %w", err)
	}
	return nil
}
