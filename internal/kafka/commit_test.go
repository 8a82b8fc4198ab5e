package kafka_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// membership makes the connections of a member's place in the group, and breaks them all on request.
type membership struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (m *membership) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.conns = append(m.conns, c)
	}
	return c, err
}

func (m *membership) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.conns = nil
}

// A member whose connection breaks comes back with the same id, and into the same generation if it is a follower. A commit
// that was given up when the drain time was over must not be taken there, nor anything be committed beside it.
func TestCommit_GivenUpIsNotTakenLater(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 2)
		var log kafkatest.Transcript
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(log.String())
			}
		})
		var taken kafkatest.Journal
		patient := func(c *kafka.Config) {
			c.Drain, c.CommitTimeout = 500*time.Millisecond, time.Minute // the session outlasts a machine that stands still for a while
		}
		leader := f.Join(t, kafkatest.EachEvent(&taken), patient)
		enginetest.Await(t, "the leader has both partitions", func() bool { return leader.Partitions() == 2 })
		late := kafkatest.NewLateRequest(kafkatest.OfDone(f.Topic))
		var place membership
		follower := f.Join(t, kafkatest.EachEvent(&taken), patient, func(c *kafka.Config) {
			c.Transport.Dial = late.Dial
			c.Dialer = &kafkago.Dialer{Timeout: 10 * time.Second, DialFunc: place.dial}
			c.Logger = log.Logger()
		})
		enginetest.Await(t, "each has one partition", func() bool { return leader.Partitions() == 1 && follower.Partitions() == 1 })
		f.Produce(t, append(kafkatest.Numbered(0, 10), kafkatest.Numbered(1, 10)...)...)
		kafkatest.Await(t, "the follower's commit to be held", late.Caught)
		place.cut()
		f.Produce(t, append(kafkatest.Numbered(0, 10), kafkatest.Numbered(1, 10)...)...)
		f.AwaitConsumed(t)
		close(late.Release)
		kafkatest.Await(t, "the first commit to arrive", late.Sent)
		if !f.Consumed(t) {
			t.Errorf("the late commit was taken: %+v", f.Positions(t))
		}
		if said := log.String(); !strings.Contains(said, "joined the generation again in which a commit got no answer") {
			t.Error("the follower did not come back into its generation, so nothing was put to the test")
		}
	})
}

// talkative is a handler that commits more metadata than brokers keep.
type talkative struct{ *kafka.Partition }

func (h *talkative) Open(_ context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	return &talkative{p}, nil
}

func (h *talkative) Begin() kafka.Batch { return &talkativeBatch{partition: h} }

type talkativeBatch struct {
	tally
	partition *talkative
}

func (b *talkativeBatch) Write(ctx context.Context, r kafka.Range) error {
	return b.partition.Commit(ctx, r.To, strings.Repeat("x", 5000))
}

// A tally is a batch that counts.
type tally struct{ rows int }

func (b *tally) Add(*events.Record) { b.rows++ }

func (b *tally) Close() {}

func (b *tally) Rows() int { return b.rows }

func (b *tally) Bytes() int64 { return int64(b.rows) }

func (b *tally) Release() {}

func TestCommit_MetadataTooLargeStopsThePartition(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedApacheKafka(t), 1)
	f.Produce(t, kafkatest.Numbered(0, 3)...)
	m := f.Join(t, &talkative{})
	enginetest.Await(t, "the partition stops", func() bool { return m.Report().State == health.Stopped })
	for _, word := range []string{f.Topic + "/0", " bytes of metadata", "offset.metadata.max.bytes"} {
		if r := m.Report(); !strings.Contains(r.Reason, word) {
			t.Errorf("the reason does not name %q: %s", word, r.Reason)
		}
	}
	if n := m.Metric(t, "tenantflow_partition_stopped", map[string]string{"topic": f.Topic, "partition": "0", "kind": "offset_metadata_too_large"}); n != 1 {
		t.Errorf("the metric says %v", n)
	}
}
