package consumers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/model"
)

// truncate takes away what a partition holds before an offset.
func (f *fixture) truncate(t *testing.T, partition int, before int64) {
	t.Helper()
	client := f.producer(t)
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = int32(partition), before
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic, topic.Partitions = f.topic, append(topic.Partitions, p)
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Topics, req.TimeoutMillis = append(req.Topics, topic), 10_000
	for _, shard := range client.RequestSharded(t.Context(), req) {
		if shard.Err != nil {
			t.Fatal(shard.Err)
		}
		for _, p := range shard.Resp.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// commitOutside sets the group's offsets as Kafka's tools do: the group has no members.
func (f *fixture) commitOutside(t testing.TB, offsets map[int]int64) {
	t.Helper()
	var commits []kafka.OffsetCommit
	for p, offset := range offsets {
		commits = append(commits, kafka.OffsetCommit{Partition: p, Offset: offset})
	}
	res, err := f.client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
		GroupID: f.group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{f.topic: commits}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range res.Topics[f.topic] {
		if p.Error != nil {
			t.Fatal(p.Error)
		}
	}
}

// A transcript is a log that can be looked into.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *transcript) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestATruncatedPartitionStopsAndSaysSo(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for _, choice := range []struct {
			policy consumers.OutOfRange
			rest   []string // what is handled of partition 0 after the operator's word
		}{
			{consumers.OutOfRangeEarliest, texts(numbered(0, 40))[30:]},
			{consumers.OutOfRangeLatest, nil},
		} {
			t.Run(string(choice.policy), func(t *testing.T) {
				t.Parallel()
				f := newLog(t, broker, 2)
				all := map[int][]*kgo.Record{0: numbered(0, 40), 1: numbered(1, 40)}
				f.produce(t, slices.Concat(all[0][:20], all[1][:20])...)
				var taken journal
				m := f.join(t, consumers.EachEvent(&taken))
				f.awaitConsumed(t, 2*time.Minute)
				if err := m.stop(); err != nil {
					t.Fatal(err)
				}
				f.produce(t, slices.Concat(all[0][20:], all[1][20:])...)
				f.truncate(t, 0, 30)

				m = f.join(t, consumers.EachEvent(&taken))
				stopped := map[string]string{"topic": f.topic, "partition": "0", "kind": "offset_out_of_range"}
				eventually(t, "the metric names the partition", 2*time.Minute, func() bool { return m.metric(t, "tenantflow_partition_stopped", stopped) == 1 })
				eventually(t, "the other partition goes on", 2*time.Minute, func() bool { return len(taken.of(1)) == 40 })
				eventually(t, "the other partition is committed", 2*time.Minute, func() bool { return f.positions(t)[1].committed == 40 })
				if n := m.metric(t, "tenantflow_offset_out_of_range_total", map[string]string{"topic": f.topic}); n != 1 {
					t.Errorf("the metric counts %v offsets out of range", n)
				}
				r := m.report()
				for _, word := range []string{f.topic + "/0", "offset 20", "[30, 40)", "TENANTFLOW_OFFSET_OUT_OF_RANGE"} {
					if r.State != health.Stopped || !strings.Contains(r.Reason, word) {
						t.Errorf("readiness is %s and does not name %q: %s", r.State, word, r.Reason)
					}
				}
				if got := taken.of(0); len(got) != 20 {
					t.Errorf("%d events of the truncated partition were handled, want 20", len(got))
				}
				if at := f.positions(t)[0].committed; at != 20 {
					t.Errorf("the offset of the stopped partition was moved to %d", at)
				}
				if err := m.stop(); err != nil {
					t.Fatal(err)
				}

				var log transcript
				m = f.join(t, consumers.EachEvent(&taken), func(c *consumers.Config) {
					c.OutOfRange, c.Logger = choice.policy, slog.New(slog.NewTextHandler(&log, nil))
				})
				eventually(t, "it is counted", 2*time.Minute, func() bool {
					return m.metric(t, "tenantflow_offset_out_of_range_total", map[string]string{"topic": f.topic}) == 1
				})
				f.produce(t, values(0, "after")...)
				f.awaitConsumed(t, 2*time.Minute)
				if got, want := taken.of(0)[20:], append(choice.rest, "after"); !slices.Equal(got, want) {
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
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for policy, want := range map[consumers.OutOfRange][]string{
			consumers.OutOfRangeEarliest: append(texts(numbered(0, 20)), "after"),
			consumers.OutOfRangeLatest:   {"after"},
		} {
			f := newLog(t, broker, 1)
			f.produce(t, numbered(0, 20)...)
			f.commitOutside(t, map[int]int64{0: 1000})
			var taken journal
			m := f.join(t, consumers.EachEvent(&taken), func(c *consumers.Config) { c.OutOfRange = policy })
			eventually(t, "the new place is committed", 2*time.Minute, func() bool { return f.positions(t)[0].committed == 20 })
			f.produce(t, values(0, "after")...)
			f.awaitConsumed(t, 2*time.Minute)
			if got := taken.of(0); !slices.Equal(got, want) {
				t.Errorf("%s: handled %v", policy, got)
			}
			if n := m.metric(t, "tenantflow_offset_out_of_range_total", map[string]string{"topic": f.topic}); n != 1 {
				t.Errorf("%s: the metric counts %v offsets out of range", policy, n)
			}
			if err := m.stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

// recreate deletes the topic, waits for something, and creates it again.
func (f *fixture) recreate(t *testing.T, broker *engine.Kafka, between func()) {
	t.Helper()
	res, err := f.client.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{f.topic}})
	if err == nil {
		err = res.Errors[f.topic]
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is deleted", 2*time.Minute, func() bool {
		meta, err := f.client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{f.topic}})
		return err == nil && len(meta.Topics) == 1 && meta.Topics[0].Error != nil
	})
	between()
	enginetest.CreateTopic(t, broker, f.topic, f.partitions)
	f.forgetMetadata(t)
}

// forgetMetadata gives the fixture a client that does not remember the topic as it was.
func (f *fixture) forgetMetadata(t *testing.T) {
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	f.client = &kafka.Client{Addr: kafka.TCP(f.brokers), Transport: transport}
}

func TestARecreatedTopicIsNoticedAndNothingOfItIsStored(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
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
				m := f.join(t, f.usage(t))
				f.awaitConsumed(t, 2*time.Minute)
				if err := m.stop(); err != nil {
					t.Fatal(err)
				}

				f.recreate(t, broker, func() {})
				others, _ := traffic(t, model.Config{Seed: 7, Count: now.events})
				f.publish(t, others)
				if now.kept {
					f.commitOutside(t, map[int]int64{0: 400})
				} else if err := deleteOffsets(t.Context(), f); err != nil {
					t.Fatal(err)
				}

				m = f.join(t, f.usage(t))
				eventually(t, "the partition stops", 2*time.Minute, func() bool { return m.report().State == health.Stopped })
				kind := ""
				for _, k := range now.kinds {
					if m.metric(t, "tenantflow_partition_stopped", map[string]string{"topic": f.topic, "partition": "0", "kind": k}) == 1 {
						kind = k
					}
				}
				if r := m.report(); kind == "" || !strings.Contains(r.Reason, "created again") && !strings.Contains(r.Reason, "recreated") {
					t.Errorf("stopped for another reason than %v: %s", now.kinds, r.Reason)
				}
				f.verify(t, want) // the rows of the old topic, and no other
			})
		}
	})
}

// deleteOffsets removes the group's offsets, if the broker has not done so with the topic.
func deleteOffsets(ctx context.Context, f *fixture) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(f.brokers))
	if err != nil {
		return err
	}
	defer client.Close()
	p := kmsg.NewOffsetDeleteRequestTopicPartition()
	topic := kmsg.NewOffsetDeleteRequestTopic()
	topic.Topic, topic.Partitions = f.topic, append(topic.Partitions, p)
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group, req.Topics = f.group, append(req.Topics, topic)
	res, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(res.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // with its last offset the group went
		return fmt.Errorf("delete offsets: %w", err)
	}
	return nil
}

// The service is running this time: the offsets it holds are those of a log that is gone. It notices by the topic
// being away, or by its offset lying beyond the end. A topic that is deleted, recreated and grown past that offset all
// between two fetches (half a second) is noticed only when the partition is next assigned.
func TestATopicRecreatedUnderARunningServiceIsNoticed(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{broker: broker, partitions: 1})
		messages, want := traffic(t, model.Config{Seed: 8, Count: 300})
		f.publish(t, messages)
		var log transcript
		m := f.join(t, f.usage(t), func(c *consumers.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%+v\n%+v\n%s", m.report(), f.positions(t), log.String())
			}
		})
		f.awaitConsumed(t, 2*time.Minute)
		f.recreate(t, broker, func() {
			eventually(t, "readiness says that the topic is away", 2*time.Minute, func() bool { return m.report().State != health.Ready })
		})
		others, _ := traffic(t, model.Config{Seed: 9, Count: 700})
		f.publish(t, others)
		eventually(t, "the partition stops", 2*time.Minute, func() bool { return m.report().State == health.Stopped })
		f.verify(t, want)
	})
}

func TestPartitionsAddedWhileRunningAreConsumed(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 1)
		f.produce(t, numbered(0, 10)...)
		var taken journal
		m := f.join(t, consumers.EachEvent(&taken))
		eventually(t, "the first partition is consumed", 2*time.Minute, func() bool { return len(taken.of(0)) == 10 })

		res, err := f.client.CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: f.topic, Count: 3,
			TopicPartitionAssignments: []kafka.TopicPartitionAssignment{{BrokerIDs: brokerIDs(t, f)}, {BrokerIDs: brokerIDs(t, f)}}}}})
		if err == nil {
			err = res.Errors[f.topic]
		}
		if err != nil {
			t.Fatal(err)
		}
		f.partitions = 3
		eventually(t, "the new partitions have leaders", 2*time.Minute, func() bool { return len(f.positions(t)) == 3 && leaders(t, f) == 3 })
		f.produce(t, slices.Concat(numbered(1, 10), numbered(2, 10))...)
		eventually(t, "the member owns the new partitions", 2*time.Minute, func() bool { return m.partitions() == 3 })
		f.awaitConsumed(t, 2*time.Minute)
		for p := range 3 {
			// Redelivery is no error of this shape; skipping is.
			if got := slices.Compact(taken.of(p)); !slices.Equal(got, texts(numbered(p, 10))) {
				t.Errorf("of partition %d: %v", p, got)
			}
		}
	})
}

func brokerIDs(t *testing.T, f *fixture) []int32 {
	t.Helper()
	meta, err := f.client.Metadata(t.Context(), &kafka.MetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return []int32{int32(meta.Brokers[0].ID)}
}

func leaders(t *testing.T, f *fixture) int {
	t.Helper()
	meta, err := f.client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{f.topic}})
	if err != nil {
		return 0
	}
	n := 0
	for _, p := range meta.Topics[0].Partitions {
		if p.Error == nil && p.Leader.Host != "" {
			n++
		}
	}
	return n
}

// The group joins before the topic is there: its members have no partitions, and are not notified of the topic.
func TestATopicCreatedAfterTheGroupHasJoinedIsConsumed(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 2)
		res, err := f.client.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{f.topic}})
		if err != nil || res.Errors[f.topic] != nil {
			t.Fatal(err, res)
		}
		var taken journal
		m := f.join(t, consumers.EachEvent(&taken))
		eventually(t, "it has joined", 2*time.Minute, func() bool { return m.metric(t, "tenantflow_rebalances_total", nil) > 0 })
		enginetest.CreateTopic(t, broker, f.topic, 2)
		f.forgetMetadata(t)
		f.produce(t, slices.Concat(numbered(0, 10), numbered(1, 10))...)
		f.awaitConsumed(t, 2*time.Minute)
		if n := m.metric(t, "tenantflow_rebalances_total", nil); n > 5 {
			t.Errorf("it joined %v times meanwhile", n)
		}
	})
}
