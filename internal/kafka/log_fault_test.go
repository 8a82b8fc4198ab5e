package kafka_test

import (
	"slices"
	"strings"
	"testing"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

func TestATruncatedPartitionStopsAndSaysSo(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for _, choice := range []struct {
			policy kafka.OutOfRange
			rest   []string // what is handled of partition 0 after the operator's word
		}{
			{kafka.OutOfRangeEarliest, kafkatest.Texts(kafkatest.Numbered(0, 40))[30:]},
			{kafka.OutOfRangeLatest, nil},
		} {
			t.Run(string(choice.policy), func(t *testing.T) {
				t.Parallel()
				f := kafkatest.NewLog(t, broker, 2)
				all := map[int][]*kgo.Record{0: kafkatest.Numbered(0, 40), 1: kafkatest.Numbered(1, 40)}
				f.Produce(t, slices.Concat(all[0][:20], all[1][:20])...)
				var taken kafkatest.Journal
				m := f.Join(t, kafkatest.EachEvent(&taken))
				f.AwaitConsumed(t)
				if err := m.Stop(); err != nil {
					t.Fatal(err)
				}
				f.Produce(t, slices.Concat(all[0][20:], all[1][20:])...)
				f.Truncate(t, 0, 30)

				m = f.Join(t, kafkatest.EachEvent(&taken))
				stopped := map[string]string{"topic": f.Topic, "partition": "0", "kind": "offset_out_of_range"}
				enginetest.Await(t, "the metric names the partition", func() bool { return m.Metric(t, "tenantflow_partition_stopped", stopped) == 1 })
				enginetest.Await(t, "the other partition goes on", func() bool { return len(taken.Of(1)) == 40 })
				enginetest.Await(t, "the other partition is committed", func() bool { return f.Positions(t)[1].Committed == 40 })
				if n := m.Metric(t, "tenantflow_offset_out_of_range_total", map[string]string{"topic": f.Topic}); n != 1 {
					t.Errorf("the metric counts %v offsets out of range", n)
				}
				r := m.Report()
				for _, word := range []string{f.Topic + "/0", "offset 20", "[30, 40)", "TENANTFLOW_OFFSET_OUT_OF_RANGE"} {
					if r.State != health.Stopped || !strings.Contains(r.Reason, word) {
						t.Errorf("readiness is %s and does not name %q: %s", r.State, word, r.Reason)
					}
				}
				if got := taken.Of(0); len(got) != 20 {
					t.Errorf("%d events of the truncated partition were handled, want 20", len(got))
				}
				if at := f.Positions(t)[0].Committed; at != 20 {
					t.Errorf("the offset of the stopped partition was moved to %d", at)
				}
				if err := m.Stop(); err != nil {
					t.Fatal(err)
				}

				var log kafkatest.Transcript
				m = f.Join(t, kafkatest.EachEvent(&taken), func(c *kafka.Config) {
					c.OutOfRange, c.Logger = choice.policy, log.Logger()
				})
				enginetest.Await(t, "it is counted", func() bool {
					return m.Metric(t, "tenantflow_offset_out_of_range_total", map[string]string{"topic": f.Topic}) == 1
				})
				f.Produce(t, kafkatest.Values(0, "after")...)
				f.AwaitConsumed(t)
				if got, want := taken.Of(0)[20:], append(choice.rest, "after"); !slices.Equal(got, want) {
					t.Errorf("went on with %v, want %v", got, want)
				}
				if said := log.String(); !strings.Contains(said, "going on at the "+string(choice.policy)+" offset") || !strings.Contains(said, "skipped=") {
					t.Errorf("the log does not say that events were skipped:\n%s", said)
				}
			})
		}
	})
}

// The log may also end before the offset: an election lost its tail, or the topic was recreated. Nothing of it was
// read yet, so going on at the earliest offset means all of it.
func TestALogThatEndsBeforeTheCommittedOffsetIsReadAsTheOperatorSays(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for policy, want := range map[kafka.OutOfRange][]string{
			kafka.OutOfRangeEarliest: append(kafkatest.Texts(kafkatest.Numbered(0, 20)), "after"),
			kafka.OutOfRangeLatest:   {"after"},
		} {
			f := kafkatest.NewLog(t, broker, 1)
			f.Produce(t, kafkatest.Numbered(0, 20)...)
			f.CommitOutside(t, map[int]int64{0: 1000})
			var taken kafkatest.Journal
			m := f.Join(t, kafkatest.EachEvent(&taken), func(c *kafka.Config) { c.OutOfRange = policy })
			enginetest.Await(t, "the new place is committed", func() bool { return f.Positions(t)[0].Committed == 20 })
			f.Produce(t, kafkatest.Values(0, "after")...)
			f.AwaitConsumed(t)
			if got := taken.Of(0); !slices.Equal(got, want) {
				t.Errorf("%s: handled %v", policy, got)
			}
			if n := m.Metric(t, "tenantflow_offset_out_of_range_total", map[string]string{"topic": f.Topic}); n != 1 {
				t.Errorf("%s: the metric counts %v offsets out of range", policy, n)
			}
			if err := m.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestPartitionsAddedWhileRunningAreConsumed(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		f.Produce(t, kafkatest.Numbered(0, 10)...)
		var taken kafkatest.Journal
		m := f.Join(t, kafkatest.EachEvent(&taken))
		enginetest.Await(t, "the first partition is consumed", func() bool { return len(taken.Of(0)) == 10 })

		res, err := f.Client.CreatePartitions(t.Context(), &kafkago.CreatePartitionsRequest{Topics: []kafkago.TopicPartitionsConfig{{Name: f.Topic, Count: 3,
			TopicPartitionAssignments: []kafkago.TopicPartitionAssignment{{BrokerIDs: f.BrokerIDs(t)}, {BrokerIDs: f.BrokerIDs(t)}}}}})
		if err == nil {
			err = res.Errors[f.Topic]
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Partitions = 3
		enginetest.Await(t, "the new partitions have leaders", func() bool { return len(f.Positions(t)) == 3 && f.Leaders(t) == 3 })
		f.Produce(t, slices.Concat(kafkatest.Numbered(1, 10), kafkatest.Numbered(2, 10))...)
		enginetest.Await(t, "the member owns the new partitions", func() bool { return m.Partitions() == 3 })
		f.AwaitConsumed(t)
		for p := range 3 {
			// Redelivery is no error of this shape; skipping is.
			if got := slices.Compact(taken.Of(p)); !slices.Equal(got, kafkatest.Texts(kafkatest.Numbered(p, 10))) {
				t.Errorf("of partition %d: %v", p, got)
			}
		}
	})
}

// The group joins before the topic is there: its members have no partitions, and are not notified of the topic.
func TestATopicCreatedAfterTheGroupHasJoinedIsConsumed(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 2)
		res, err := f.Client.DeleteTopics(t.Context(), &kafkago.DeleteTopicsRequest{Topics: []string{f.Topic}})
		if err != nil || res.Errors[f.Topic] != nil {
			t.Fatal(err, res)
		}
		var taken kafkatest.Journal
		m := f.Join(t, kafkatest.EachEvent(&taken))
		enginetest.Await(t, "it has joined", func() bool { return m.Metric(t, "tenantflow_rebalances_total", nil) > 0 })
		enginetest.CreateTopic(t, broker, f.Topic, 2)
		f.RenewClient(t)
		f.Produce(t, slices.Concat(kafkatest.Numbered(0, 10), kafkatest.Numbered(1, 10))...)
		f.AwaitConsumed(t)
		if n := m.Metric(t, "tenantflow_rebalances_total", nil); n > 5 {
			t.Errorf("it joined %v times meanwhile", n)
		}
	})
}
