package consumers_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
)

// One batch of a few kilobytes holds a quarter of a gigabyte, between good events.
func TestUsage_BatchThatInflatesIsADeadLetter(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{partitions: 1, broker: broker})
		messages, want := traffic(t, model.Config{Seed: 21, Count: 200})
		f.publish(t, messages[:100])
		large := usageRecord("large", nil)
		large.Value = make([]byte, 257<<20)
		client := f.producer(t, kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerBatchMaxBytes(400<<20), kgo.BrokerMaxWriteBytes(500<<20), kgo.MaxBufferedBytes(1<<30))
		if err := client.ProduceSync(t.Context(), large).FirstErr(); err != nil {
			t.Fatal(err)
		}
		client.Close()
		f.publish(t, messages[100:])
		f.finish(t, f.start(t, faulty(1000)))
		want.DeadLetters[events.TooLarge]++
		f.verify(t, want)
		letter := f.lettersByOrigin(t)[events.Origin{Group: f.group, Topic: f.topic, Offset: large.Offset}]
		if letter == nil || letter.Large == nil {
			t.Fatalf("the dead letter is %+v", letter)
		}
		sum, key := sha256.Sum256(large.Value), sha256.Sum256(large.Key)
		l := letter.Large
		if l.ValueBytes != len(large.Value) || l.ValueSHA256 != hex.EncodeToString(sum[:]) || l.KeySHA256 != hex.EncodeToString(key[:]) ||
			!l.KeyKept || string(letter.Key) != "acme" || len(letter.Headers) != len(large.Headers) || letter.Redrivable() {
			t.Errorf("the dead letter is %+v: %+v", letter, l)
		}
	})
}

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
	written chan consumers.Range
}

func (s *snapper) Open(context.Context, *consumers.Partition) (consumers.BatchPartition, error) {
	return s, nil
}

func (s *snapper) Begin() consumers.Batch { return &snapped{snapper: s} }

func (s *snapper) End(consumers.Batch) {}

func (s *snapper) Write(_ context.Context, _ consumers.Batch, r consumers.Range) error {
	s.written <- r
	return nil
}

type snapped struct {
	tally
	snapper *snapper
}

func (b *snapped) Add(r *events.Record) {
	if b.tally.Add(r); b.rows == b.snapper.n {
		b.snapper.fuse.blow()
	}
}

func TestReader_HandsOverWhatItHasWhileFetchesFail(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 1)
	f.produce(t, numbered(0, 10)...)
	s := &snapper{n: 10, fuse: &fuse{}, written: make(chan consumers.Range, 1)}
	f.join(t, s, func(c *consumers.Config) {
		c.Transport.Dial = s.fuse.dial
		c.BatchInterval = 2 * time.Second // fetches fail long before it is over
	})
	if r := await(t, "the batch to be handed over", s.written); r != (consumers.Range{From: 0, To: 10}) {
		t.Errorf("handed over %s", r)
	}
}

// A record above what is kept is not handed to a handler of single events either.
func TestEachEvent_LargeRecordIsADeadLetter(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 1)
	client := f.producer(t, kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(40<<20))
	large := &kgo.Record{Key: []byte("k"), Value: make([]byte, 9<<20)}
	if err := client.ProduceSync(t.Context(), values(0, "a")[0], large, values(0, "b")[0]).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var taken journal
	f.join(t, consumers.EachEvent(&taken))
	f.awaitConsumed(t, time.Minute)
	if got := taken.of(0); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("handled %q", got)
	}
	if n := f.letters(t)[events.TooLarge]; n != 1 {
		t.Errorf("%d dead letters", n)
	}
}
