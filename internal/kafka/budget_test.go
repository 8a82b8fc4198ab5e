package kafka_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// A scale is a handler that keeps what it is given until End, and weighs what all partitions hold together. It writes
// nothing before its gate opens.
type scale struct {
	gate       chan struct{}
	held, most atomic.Int64
	written    atomic.Int64 // records
	largest    atomic.Int64 // bytes of a batch
}

func (s *scale) Open(context.Context, *kafka.Partition) (kafka.BatchPartition, error) {
	return s, nil
}

func (s *scale) Begin() kafka.Batch { return &weighed{scale: s} }

func (b *weighed) Release() { b.scale.held.Add(-b.bytes) }

func (b *weighed) Write(ctx context.Context, _ kafka.Range) error {
	s := b.scale
	select {
	case <-s.gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.written.Add(int64(b.rows))
	return nil
}

type weighed struct {
	scale *scale
	rows  int
	bytes int64
	kept  [][]byte
}

func (b *weighed) Add(r *events.Record) {
	b.kept = append(b.kept, bytes.Clone(r.Value))
	b.rows++
	n := int64(len(r.Value))
	b.bytes += n
	held := b.scale.held.Add(n)
	raise(&b.scale.most, held)
	raise(&b.scale.largest, b.bytes)
}

func (b *weighed) Close() {}

func (b *weighed) Rows() int { return b.rows }

func (b *weighed) Bytes() int64 { return b.bytes }

func raise(to *atomic.Int64, n int64) {
	for old := to.Load(); n > old && !to.CompareAndSwap(old, n); old = to.Load() {
	}
}

func TestMemoryIsBoundedByTheBudgetWhateverTheNumberOfPartitions(t *testing.T) {
	t.Parallel()
	const budget = 4 << 20
	for _, load := range []struct {
		name              string
		partitions, count int // records in each partition
		size              int // of a record
		codec             kgo.CompressionCodec
		budget            int64
	}{
		{"many partitions", 32, 600, 1 << 10, kgo.NoCompression(), budget},
		// The broker sends whole batches, and these grow a hundredfold when they are read.
		{"records that compress well", 8, 6000, 1 << 10, kgo.ZstdCompression(), budget},
		{"a budget below one fetch", 4, 1200, 1 << 10, kgo.NoCompression(), 1000},
		{"records larger than a fetch", 4, 12, 3 << 20, kgo.ZstdCompression(), 8 << 20},
	} {
		t.Run(load.name, func(t *testing.T) {
			t.Parallel()
			f := kafkatest.NewLog(t, enginetest.SharedKafka(t), load.partitions)
			client := f.Producer(t, kgo.ProducerBatchCompression(load.codec), kgo.ProducerBatchMaxBytes(int32(max(1_000_000, 2*load.size))))
			value := bytes.Repeat([]byte("budget 1"), load.size/8)
			for p := range load.partitions {
				records := make([]*kgo.Record, load.count)
				for i := range records {
					records[i] = &kgo.Record{Partition: int32(p), Key: []byte("k"), Value: value}
				}
				if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			s := &scale{gate: make(chan struct{})}
			m := f.Join(t, s, func(c *kafka.Config) {
				c.Budget, c.BatchRows, c.BatchInterval = kafka.NewBudget(load.budget), 100_000, 20*time.Millisecond
			})
			// Nothing is written, so all partitions take what they can get, and then wait.
			var before int64
			var since time.Time
			enginetest.Await(t, "the readers wait for the budget", func() bool {
				if held := s.held.Load(); held == 0 || held != before {
					before, since = held, time.Now()
					return false
				}
				return time.Since(since) > time.Second
			})
			close(s.gate)
			total := int64(load.partitions * load.count)
			enginetest.Await(t, "everything is consumed", func() bool { return s.written.Load() == total })
			f.AwaitConsumed(t)
			if err := m.Stop(); err != nil {
				t.Fatal(err)
			}
			bound := max(load.budget, 1<<20) + 64<<10 // a record over the edge here and there
			if most := s.most.Load(); most > bound {
				t.Errorf("%d bytes were held at a time, of a budget of %d", most, load.budget)
			}
			if s.held.Load() != 0 {
				t.Errorf("%d bytes of batches did not come back", s.held.Load())
			}
			t.Logf("backlog %d KiB, at most %d KiB held, largest batch %d KiB", total, s.most.Load()>>10, s.largest.Load()>>10)
		})
	}
}
