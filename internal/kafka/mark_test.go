package kafka_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

func TestSplitMark_TakesMetadataApart(t *testing.T) {
	t.Parallel()
	mark := kafka.Mark{Offset: 9, Hash: 0xabc}
	for _, c := range []struct {
		metadata, rest string
		mark           kafka.Mark
	}{
		{"", "", kafka.Mark{}},
		{"tf1 10 0 0", "tf1 10 0 0", kafka.Mark{}},
		{"@9:0000000000000abc", "", mark},
		{"@9:0000000000000abc tf1 10 0 0", "tf1 10 0 0", mark},
		{"@9:abc", "@9:abc", kafka.Mark{}},
		{"@-9:0000000000000abc", "@-9:0000000000000abc", kafka.Mark{}},
		{"@9:000000000000xabc x", "@9:000000000000xabc x", kafka.Mark{}},
		{"@", "@", kafka.Mark{}},
	} {
		if mark, rest := kafka.SplitMark(c.metadata); mark != c.mark || rest != c.rest {
			t.Errorf("%q is %+v and %q, want %+v and %q", c.metadata, mark, rest, c.mark, c.rest)
		}
	}
}

// rawMetadata is what the group has committed with the offset of partition 0.
func rawMetadata(t *testing.T, f *kafkatest.Log) string {
	t.Helper()
	res, err := f.Client.OffsetFetch(t.Context(), &kafkago.OffsetFetchRequest{GroupID: f.Group, Topics: map[string][]int{f.Topic: {0}}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Topics[f.Topic][0].Metadata
}

// commitRaw commits an offset of partition 0 while the group has no members.
func commitRaw(t *testing.T, f *kafkatest.Log, offset int64, metadata string) {
	t.Helper()
	var res *kafkago.OffsetCommitResponse
	enginetest.Await(t, "the broker takes the commit", func() bool {
		var err error
		res, err = f.Client.OffsetCommit(t.Context(), &kafkago.OffsetCommitRequest{GroupID: f.Group, GenerationID: -1,
			Topics: map[string][]kafkago.OffsetCommit{f.Topic: {{Partition: 0, Offset: offset, Metadata: metadata}}}})
		return err == nil && res.Topics[f.Topic][0].Error == nil
	})
}

func others(n int) []*kgo.Record {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprint("other ", i)
	}
	return kafkatest.Values(0, texts...)
}

// notAtOnce lets as much time pass between the end of a topic and its return as the reader takes for possible: a broker in
// memory can do it in less than the half second after which the reader doubts that the log is the same.
func notAtOnce(t *testing.T) func() {
	began := time.Now()
	return func() {
		t.Helper()
		enginetest.Await(t, "the topic to be away for a while", func() bool { return time.Since(began) > time.Second })
	}
}

// stopsAsRecreated waits until the partition is stopped because the log is another one.
func stopsAsRecreated(t *testing.T, f *kafkatest.Log, m *kafkatest.Member) {
	t.Helper()
	enginetest.Await(t, "the partition stops", func() bool { return m.Report().State == health.Stopped })
	r := m.Report()
	if n := m.Metric(t, "tenantflow_partition_stopped", map[string]string{"topic": f.Topic, "partition": "0", "kind": "topic_recreated"}); n != 1 {
		t.Errorf("stopped for another reason: %s", r.Reason)
	}
	if !strings.Contains(r.Reason, "created again") || !strings.Contains(r.Reason, "another topic prefix") || strings.Contains(r.Reason, "remove") {
		t.Errorf("the reason is %q", r.Reason)
	}
}

// Nothing is stored from the topic that could tell the two apart.
func TestMark_RecreatedTopicStopsATakeover(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for name, n := range map[string]int{"grown past the committed offset": 40, "shorter": 10} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := kafkatest.NewLog(t, broker, 1)
				f.Produce(t, kafkatest.Numbered(0, 20)...)
				var taken kafkatest.Journal
				m := f.Join(t, kafkatest.EachEvent(&taken))
				f.AwaitConsumed(t)
				if err := m.Stop(); err != nil {
					t.Fatal(err)
				}
				raw := rawMetadata(t, f)
				if mark, rest := kafka.SplitMark(raw); mark.Offset != 19 || mark.IsZero() || rest != "" {
					t.Fatalf("the metadata is %q", raw)
				}
				f.Recreate(t, broker, func() {})
				f.Produce(t, others(n)...)
				commitRaw(t, f, 20, raw) // where the broker has forgotten it with the topic
				m = f.Join(t, kafkatest.EachEvent(&taken))
				stopsAsRecreated(t, f, m)
				if got := taken.Of(0); len(got) != 20 {
					t.Errorf("%d events were handled, want 20", len(got))
				}
			})
		}
	})
}

// Metadata without a mark, as of older versions and of Kafka's own tool, is compared with nothing.
func TestMark_NoneIsComparedWithNothing(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 1)
	f.Produce(t, kafkatest.Numbered(0, 20)...)
	commitRaw(t, f, 10, "")
	var taken kafkatest.Journal
	f.Join(t, kafkatest.EachEvent(&taken))
	f.AwaitConsumed(t)
	if got := taken.Of(0); !slices.Equal(got, kafkatest.Texts(kafkatest.Numbered(0, 20))[10:]) {
		t.Errorf("handled %v", got)
	}
}

func TestMark_RecreatedTopicStopsARunningConsumer(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		f.Produce(t, kafkatest.Numbered(0, 20)...)
		var taken kafkatest.Journal
		m := f.Join(t, kafkatest.EachEvent(&taken))
		f.AwaitConsumed(t)
		f.Recreate(t, broker, notAtOnce(t))
		f.Produce(t, others(40)...)
		stopsAsRecreated(t, f, m)
		if got := taken.Of(0); len(got) != 20 {
			t.Errorf("%d events were handled, want 20", len(got))
		}
	})
}

// The reader waits for the writer while the topic is exchanged, so none of its fetches fails.
func TestMark_ExchangeBetweenTwoFetchesIsNoticed(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		f.Produce(t, kafkatest.Numbered(0, 20)...)
		var taken kafkatest.Journal
		gate, reached := make(chan struct{}), make(chan struct{}, 1000)
		m := f.Join(t, kafkatest.EachEvent(kafkatest.EventFunc(func(ctx context.Context, r *events.Record) error {
			reached <- struct{}{}
			select {
			case <-gate:
				return taken.Handle(ctx, r)
			case <-ctx.Done():
				return ctx.Err()
			}
		})), func(c *kafka.Config) { c.BatchRows = 5 })
		kafkatest.Await(t, "the first event to be handled", reached)
		f.Recreate(t, broker, notAtOnce(t))
		f.Produce(t, others(40)...)
		close(gate)
		stopsAsRecreated(t, f, m)
		if got := taken.Of(0); !slices.Equal(got, kafkatest.Texts(kafkatest.Numbered(0, 20))[:len(got)]) {
			t.Errorf("handled %v", got)
		}
	})
}

// What retention has taken away is no other record, for a running consumer that connects again and for the next one.
func TestMark_RecordThatIsGoneIsNoDifference(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		f.Produce(t, kafkatest.Numbered(0, 20)...)
		var taken kafkatest.Journal
		var conns membership
		m := f.Join(t, kafkatest.EachEvent(&taken), func(c *kafka.Config) { c.Transport.Dial = conns.dial })
		f.AwaitConsumed(t)
		f.Truncate(t, 0, 20)
		conns.cut()
		f.Produce(t, kafkatest.Values(0, "later")...)
		f.AwaitConsumed(t)
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		f.Truncate(t, 0, 21)
		f.Produce(t, kafkatest.Values(0, "last")...)
		f.Join(t, kafkatest.EachEvent(&taken))
		f.AwaitConsumed(t)
		got := slices.Compact(taken.Of(0)) // a cut connection may mean redelivery
		if want := append(kafkatest.Texts(kafkatest.Numbered(0, 20)), "later", "last"); !slices.Equal(got, want) {
			t.Errorf("handled %v, want %v", got, want)
		}
	})
}
