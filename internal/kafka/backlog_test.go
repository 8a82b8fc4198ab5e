package kafka_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// The budget holds not five full batches, and eight partitions want one each. If all filled theirs at once, none
// would get beyond half of it.
func TestInABacklogPartitionsTakeTurnsSoThatBatchesAreFull(t *testing.T) {
	t.Parallel()
	const partitions, rows, full, size = 8, 1200, 400, 10 << 10
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), partitions)
	client := f.Producer(t)
	value := bytes.Repeat([]byte("backlog "), size/8)
	for p := range partitions {
		records := make([]*kgo.Record, rows)
		for i := range records {
			records[i] = &kgo.Record{Partition: int32(p), Key: []byte("k"), Value: value}
		}
		if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	s := &scale{gate: make(chan struct{})}
	close(s.gate)
	budget := kafka.NewBudget(24 << 20)
	metered := &counted{scale: s, rows: full}
	// An interval that is over at once: in a backlog it must not cut batches.
	m := f.Join(t, metered, func(c *kafka.Config) {
		c.Budget, c.BatchRows, c.BatchInterval = budget, full, time.Millisecond
	})
	enginetest.Await(t, "everything is consumed", func() bool { return s.written.Load() == partitions*rows })
	f.AwaitConsumed(t)
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	// The first batch of a partition may be small, because what its rows weigh is not known yet, and so is what is left
	// for the last. One more may be where others have used the budget up at that moment. Without turns there are none at all.
	if n, least := metered.full.Load(), int64(partitions*(rows/full-1)*3/4); n < least {
		t.Errorf("%d batches of %d rows, want %d at least", n, full, least)
	}
	if s.most.Load() > 24<<20+partitions*size {
		t.Errorf("%d bytes were held at a time, of a budget of %d", s.most.Load(), 24<<20)
	}
}

// counted is a scale that counts the batches with so many rows.
type counted struct {
	*scale
	rows int
	full atomic.Int64
}

func (c *counted) Open(context.Context, *kafka.Partition) (kafka.BatchPartition, error) {
	return c, nil
}

func (c *counted) Begin() kafka.Batch { return &countedBatch{weighed{scale: c.scale}, c} }

type countedBatch struct {
	weighed
	counted *counted
}

func (b *countedBatch) Write(ctx context.Context, r kafka.Range) error {
	if b.Rows() == b.counted.rows {
		b.counted.full.Add(1)
	}
	return b.weighed.Write(ctx, r)
}
