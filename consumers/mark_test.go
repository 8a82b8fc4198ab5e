package consumers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
)

func TestSplitMark_TakesMetadataApart(t *testing.T) {
	t.Parallel()
	mark := consumers.Mark{Offset: 9, Hash: 0xabc}
	for _, c := range []struct {
		metadata, rest string
		mark           consumers.Mark
	}{
		{"", "", consumers.Mark{}},
		{"tf1 10 0 0", "tf1 10 0 0", consumers.Mark{}},
		{"@9:0000000000000abc", "", mark},
		{"@9:0000000000000abc tf1 10 0 0", "tf1 10 0 0", mark},
		{"@9:abc", "@9:abc", consumers.Mark{}},
		{"@-9:0000000000000abc", "@-9:0000000000000abc", consumers.Mark{}},
		{"@9:000000000000xabc x", "@9:000000000000xabc x", consumers.Mark{}},
		{"@", "@", consumers.Mark{}},
	} {
		if mark, rest := consumers.SplitMark(c.metadata); mark != c.mark || rest != c.rest {
			t.Errorf("%q is %+v and %q, want %+v and %q", c.metadata, mark, rest, c.mark, c.rest)
		}
	}
}

// rawMetadata is what the group has committed with the offset of partition 0.
func (f *fixture) rawMetadata(t *testing.T) string {
	t.Helper()
	res, err := f.client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: f.group, Topics: map[string][]int{f.topic: {0}}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Topics[f.topic][0].Metadata
}

// commitRaw commits an offset of partition 0 while the group has no members.
func (f *fixture) commitRaw(t *testing.T, offset int64, metadata string) {
	t.Helper()
	var res *kafka.OffsetCommitResponse
	eventually(t, "the broker takes the commit", time.Minute, func() bool {
		var err error
		res, err = f.client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{GroupID: f.group, GenerationID: -1,
			Topics: map[string][]kafka.OffsetCommit{f.topic: {{Partition: 0, Offset: offset, Metadata: metadata}}}})
		return err == nil && res.Topics[f.topic][0].Error == nil
	})
}

func others(n int) []*kgo.Record {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprint("other ", i)
	}
	return values(0, texts...)
}

// notAtOnce lets as much time pass between the end of a topic and its return as the reader takes for possible: a broker in
// memory can do it in less than the half second after which the reader doubts that the log is the same.
func notAtOnce(t *testing.T) func() {
	began := time.Now()
	return func() {
		t.Helper()
		eventually(t, "the topic to be away for a while", time.Minute, func() bool { return time.Since(began) > time.Second })
	}
}

// stopsAsRecreated waits until the partition is stopped because the log is another one.
func stopsAsRecreated(t *testing.T, f *fixture, m *member) {
	t.Helper()
	eventually(t, "the partition stops", 2*time.Minute, func() bool { return m.report().State == health.Stopped })
	r := m.report()
	if n := m.metric(t, "tenantflow_partition_stopped", map[string]string{"topic": f.topic, "partition": "0", "kind": "topic_recreated"}); n != 1 {
		t.Errorf("stopped for another reason: %s", r.Reason)
	}
	if !strings.Contains(r.Reason, "created again") || !strings.Contains(r.Reason, "another topic prefix") || strings.Contains(r.Reason, "remove") {
		t.Errorf("the reason is %q", r.Reason)
	}
}

// Nothing is stored from the topic that could tell the two apart.
func TestMark_RecreatedTopicStopsATakeover(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for name, n := range map[string]int{"grown past the committed offset": 40, "shorter": 10} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := newLog(t, broker, 1)
				f.produce(t, numbered(0, 20)...)
				var taken journal
				m := f.join(t, consumers.EachEvent(&taken))
				f.awaitConsumed(t, 2*time.Minute)
				if err := m.stop(); err != nil {
					t.Fatal(err)
				}
				raw := f.rawMetadata(t)
				if mark, rest := consumers.SplitMark(raw); mark.Offset != 19 || mark.IsZero() || rest != "" {
					t.Fatalf("the metadata is %q", raw)
				}
				f.recreate(t, broker, func() {})
				f.produce(t, others(n)...)
				f.commitRaw(t, 20, raw) // where the broker has forgotten it with the topic
				m = f.join(t, consumers.EachEvent(&taken))
				stopsAsRecreated(t, f, m)
				if got := taken.of(0); len(got) != 20 {
					t.Errorf("%d events were handled, want 20", len(got))
				}
			})
		}
	})
}

// Metadata without a mark, as of older versions and of Kafka's own tool, is compared with nothing.
func TestMark_NoneIsComparedWithNothing(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 1)
	f.produce(t, numbered(0, 20)...)
	f.commitRaw(t, 10, "")
	var taken journal
	f.join(t, consumers.EachEvent(&taken))
	f.awaitConsumed(t, 2*time.Minute)
	if got := taken.of(0); !slices.Equal(got, texts(numbered(0, 20))[10:]) {
		t.Errorf("handled %v", got)
	}
}

func TestMark_RecreatedTopicStopsARunningConsumer(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 1)
		f.produce(t, numbered(0, 20)...)
		var taken journal
		m := f.join(t, consumers.EachEvent(&taken))
		f.awaitConsumed(t, 2*time.Minute)
		f.recreate(t, broker, notAtOnce(t))
		f.produce(t, others(40)...)
		stopsAsRecreated(t, f, m)
		if got := taken.of(0); len(got) != 20 {
			t.Errorf("%d events were handled, want 20", len(got))
		}
	})
}

// The reader waits for the writer while the topic is exchanged, so none of its fetches fails.
func TestMark_ExchangeBetweenTwoFetchesIsNoticed(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 1)
		f.produce(t, numbered(0, 20)...)
		var taken journal
		gate, reached := make(chan struct{}), make(chan struct{}, 1000)
		m := f.join(t, consumers.EachEvent(eventFunc(func(ctx context.Context, r *events.Record) error {
			reached <- struct{}{}
			select {
			case <-gate:
				return taken.Handle(ctx, r)
			case <-ctx.Done():
				return ctx.Err()
			}
		})), func(c *consumers.Config) { c.BatchRows = 5 })
		await(t, "the first event to be handled", reached)
		f.recreate(t, broker, notAtOnce(t))
		f.produce(t, others(40)...)
		close(gate)
		stopsAsRecreated(t, f, m)
		if got := taken.of(0); !slices.Equal(got, texts(numbered(0, 20))[:len(got)]) {
			t.Errorf("handled %v", got)
		}
	})
}

// What retention has taken away is no other record, for a running consumer that connects again and for the next one.
func TestMark_RecordThatIsGoneIsNoDifference(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 1)
		f.produce(t, numbered(0, 20)...)
		var taken journal
		var conns membership
		m := f.join(t, consumers.EachEvent(&taken), func(c *consumers.Config) { c.Transport.Dial = conns.dial })
		f.awaitConsumed(t, 2*time.Minute)
		f.truncate(t, 0, 20)
		conns.cut()
		f.produce(t, values(0, "later")...)
		f.awaitConsumed(t, 2*time.Minute)
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		f.truncate(t, 0, 21)
		f.produce(t, values(0, "last")...)
		f.join(t, consumers.EachEvent(&taken))
		f.awaitConsumed(t, 2*time.Minute)
		got := slices.Compact(taken.of(0)) // a cut connection may mean redelivery
		if want := append(texts(numbered(0, 20)), "later", "last"); !slices.Equal(got, want) {
			t.Errorf("handled %v, want %v", got, want)
		}
	})
}
