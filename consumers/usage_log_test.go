package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

func TestARecreatedTopicIsNoticedAndNothingOfItIsStored(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for _, now := range []struct {
			name   string
			events int  // of the new topic
			kept   bool // the group's offset is the old topic's, else it is gone, as Apache Kafka does it
			kinds  []string
		}{
			{"smaller than the committed offset", 100, true, []string{"offset_out_of_range", "topic_recreated"}},
			{"grown past the committed offset", 900, true, []string{"topic_recreated"}},
			{"with the committed offset gone", 100, false, []string{"topic_recreated"}},
		} {
			t.Run(now.name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, fixtureOptions{broker: broker, partitions: 1})
				messages, want := traffic(t, model.Config{Seed: 6, Count: 400})
				f.publish(t, messages)
				m := f.Join(t, f.usage(t))
				f.AwaitConsumed(t)
				if err := m.Stop(); err != nil {
					t.Fatal(err)
				}

				f.Recreate(t, broker, func() {})
				others, _ := traffic(t, model.Config{Seed: 7, Count: now.events})
				f.publish(t, others)
				if now.kept {
					f.CommitOutside(t, map[int]int64{0: 400})
				} else {
					enginetest.Await(t, "the offsets to be deleted", func() bool { return deleteOffsets(t.Context(), f) == nil }) // while the group is emptying it refuses
				}

				m = f.Join(t, f.usage(t))
				enginetest.Await(t, "the partition stops", func() bool { return m.Report().State == health.Stopped })
				kind := ""
				for _, k := range now.kinds {
					if m.Metric(t, "tenantflow_partition_stopped", map[string]string{"topic": f.Topic, "partition": "0", "kind": k}) == 1 {
						kind = k
					}
				}
				if r := m.Report(); kind == "" || !strings.Contains(r.Reason, "created again") && !strings.Contains(r.Reason, "recreated") {
					t.Errorf("stopped for another reason than %v: %s", now.kinds, r.Reason)
				}
				f.verify(t, want) // the rows of the old topic, and no other
			})
		}
	})
}

// deleteOffsets removes the group's offsets, if the broker has not done so with the topic.
func deleteOffsets(ctx context.Context, f *fixture) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(f.Brokers))
	if err != nil {
		return err
	}
	defer client.Close()
	p := kmsg.NewOffsetDeleteRequestTopicPartition()
	topic := kmsg.NewOffsetDeleteRequestTopic()
	topic.Topic, topic.Partitions = f.Topic, append(topic.Partitions, p)
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group, req.Topics = f.Group, append(req.Topics, topic)
	res, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(res.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // with its last offset the group went
		return fmt.Errorf("delete offsets: %w", err)
	}
	for _, topic := range res.Topics {
		for _, p := range topic.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); errors.Is(err, kerr.GroupSubscribedToTopic) {
				return fmt.Errorf("delete the offset of partition %d: %w", p.Partition, err)
			}
		}
	}
	return nil
}

// The service is running this time: the offsets it holds are those of a log that is gone. It notices by the topic
// being away, or by its offset lying beyond the end. A topic that is deleted, recreated and grown past that offset all
// between two fetches (half a second) is noticed only when the partition is next assigned.
func TestATopicRecreatedUnderARunningServiceIsNoticed(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{broker: broker, partitions: 1})
		messages, want := traffic(t, model.Config{Seed: 8, Count: 300})
		f.publish(t, messages)
		var log kafkatest.Transcript
		m := f.Join(t, f.usage(t), func(c *kafka.Config) { c.Logger = log.Logger() })
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%+v\n%+v\n%s", m.Report(), f.Positions(t), log.String())
			}
		})
		f.AwaitConsumed(t)
		f.Recreate(t, broker, func() {
			enginetest.Await(t, "readiness says that the topic is away", func() bool { return m.Report().State != health.Ready })
		})
		others, _ := traffic(t, model.Config{Seed: 9, Count: 700})
		f.publish(t, others)
		enginetest.Await(t, "the partition stops", func() bool { return m.Report().State == health.Stopped })
		f.verify(t, want)
	})
}

// The next owner looks at what the log holds around the committed offset. What it can't read yet must not keep it there.
func TestTransaction_OpenOneHoldsUpNoTakeover(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{broker: broker, partitions: 1})
		messages, _ := traffic(t, model.Config{Seed: 21, Count: 60})
		f.publish(t, messages[:50])
		f.finish(t, f.start(t, faulty(1000)))
		f.publish(t, messages[50:55])
		open := f.OpenTransaction(t)
		m := f.Join(t, f.usage(t))
		enginetest.Await(t, "what came before the transaction is stored", func() bool { return f.count(t, "SELECT count() FROM usage_tracking") == 55 })
		enginetest.Await(t, "there is nothing to do", func() bool { return m.Report().Lag == 0 })
		if n := m.Metric(t, "tenantflow_partition_lag", map[string]string{"topic": f.Topic, "partition": "0"}); n == 0 {
			t.Error("the lag does not show the record of the open transaction")
		}
		if err := open.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		f.publish(t, messages[55:])
		f.AwaitConsumed(t)
		if n := f.count(t, "SELECT count() FROM usage_tracking"); n != 60 {
			t.Errorf("%d rows, want 60", n)
		}
	})
}
