package kafka_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// A fuse lets connections to a broker be made until it is blown, which also breaks those that there are.
type fuse struct {
	membership
	mu    sync.Mutex
	blown bool
}

func (f *fuse) dial(ctx context.Context, network, address string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blown {
		return nil, errors.New("the fuse is blown")
	}
	return f.membership.dial(ctx, network, address)
}

func (f *fuse) blow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blown = true
	f.cut()
}

// A snapper is a handler that loses its broker with the last of n records, and notes what it is handed over all the same.
type snapper struct {
	n       int
	fuse    *fuse
	written chan kafka.Range
}

func (s *snapper) Open(context.Context, *kafka.Partition) (kafka.BatchPartition, error) {
	return s, nil
}

func (s *snapper) Begin() kafka.Batch { return &snapped{snapper: s} }

type snapped struct {
	tally
	snapper *snapper
}

func (b *snapped) Add(r *events.Record) {
	if b.tally.Add(r); b.rows == b.snapper.n {
		b.snapper.fuse.blow()
	}
}

func (b *snapped) Write(_ context.Context, r kafka.Range) error {
	b.snapper.written <- r
	return nil
}

func TestReader_HandsOverWhatItHasWhileFetchesFail(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 1)
	f.Produce(t, kafkatest.Numbered(0, 10)...)
	s := &snapper{n: 10, fuse: &fuse{}, written: make(chan kafka.Range, 1)}
	f.Join(t, s, func(c *kafka.Config) {
		c.Transport.Dial = s.fuse.dial
		c.BatchInterval = 2 * time.Second // fetches fail long before it is over
	})
	if r := kafkatest.Await(t, "the batch to be handed over", s.written); r != (kafka.Range{From: 0, To: 10}) {
		t.Errorf("handed over %s", r)
	}
}

// A record above what is kept is not handed to a handler of single events either.
func TestEachEvent_LargeRecordIsADeadLetter(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 1)
	client := f.Producer(t, kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(40<<20))
	large := &kgo.Record{Key: []byte("k"), Value: make([]byte, 9<<20)}
	if err := client.ProduceSync(t.Context(), kafkatest.Values(0, "a")[0], large, kafkatest.Values(0, "b")[0]).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var taken kafkatest.Journal
	f.Join(t, kafkatest.EachEvent(&taken))
	f.AwaitConsumed(t)
	if got := taken.Of(0); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("handled %q", got)
	}
	if n := f.Letters(t)[events.TooLarge]; n != 1 {
		t.Errorf("%d dead letters", n)
	}
}
