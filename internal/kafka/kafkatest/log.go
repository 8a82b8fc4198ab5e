// Package kafkatest is what tests of consumers share: a topic with a group that reads it, members of the group, producers of
// exact bytes, and networks that lose and delay. Engines come from enginetest.
package kafkatest

import (
	"context"
	"strings"
	"testing"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
)

// A Log is a topic of the test's own with its dead letters, and a consumer group that reads it.
type Log struct {
	Brokers    string // HOST:PORT
	Topic      string
	Group      string
	Partitions int
	Client     *kafkago.Client
}

// NewLog makes a topic and its dead letters on a broker.
func NewLog(t testing.TB, broker *engine.Kafka, partitions int, config ...kafkago.ConfigEntry) *Log {
	t.Helper()
	f := &Log{Brokers: broker.Addr(), Partitions: partitions}
	f.Topic = enginetest.NewTopicOn(t, broker, partitions, config...)
	enginetest.CreateTopic(t, broker, events.DeadLetterTopic(f.Topic), 1)
	f.Group = f.Topic + ".events"
	f.RenewClient(t)
	return f
}

// A Position is what the group has committed for a partition, and what its log holds.
type Position struct {
	Committed, First, End int64  // Committed -1: nothing
	Metadata              string // the handler's
	Mark                  kafka.Mark
}

// Positions is where the group is, by partition; nil where the broker does not answer.
func (f *Log) Positions(t testing.TB) map[int]Position {
	t.Helper()
	ids := make([]int, f.Partitions)
	requests := make([]kafkago.OffsetRequest, 0, 2*f.Partitions)
	for i := range ids {
		ids[i] = i
		requests = append(requests, kafkago.FirstOffsetOf(i), kafkago.LastOffsetOf(i))
	}
	out := map[int]Position{}
	committed, err := f.Client.OffsetFetch(t.Context(), &kafkago.OffsetFetchRequest{GroupID: f.Group, Topics: map[string][]int{f.Topic: ids}})
	if err != nil {
		return nil // a broker that is away; ask again
	}
	log, err := f.Client.ListOffsets(t.Context(), &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{f.Topic: requests}})
	if err != nil {
		return nil
	}
	for _, p := range committed.Topics[f.Topic] {
		at := Position{Committed: p.CommittedOffset}
		at.Mark, at.Metadata = kafka.SplitMark(p.Metadata)
		out[p.Partition] = at
	}
	for _, p := range log.Topics[f.Topic] {
		at := out[p.Partition]
		at.First, at.End = p.FirstOffset, p.LastOffset
		out[p.Partition] = at
	}
	return out
}

// Consumed reports whether the group has committed the whole log and nothing is pending. Quotas have metadata at any time.
func (f *Log) Consumed(t testing.TB) bool {
	at := f.Positions(t)
	if len(at) != f.Partitions {
		return false
	}
	for _, p := range at {
		if p.Committed != p.End && !(p.Committed < 0 && p.End == p.First) || p.Metadata != "" && !strings.HasPrefix(p.Metadata, "q1 ") {
			return false
		}
	}
	return true
}

// AwaitConsumed waits until everything is consumed.
func (f *Log) AwaitConsumed(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool { return f.Consumed(t) }); err != nil {
		t.Fatalf("the log was not consumed within %s: %+v", enginetest.Patience, f.Positions(t))
	}
}

// Letters counts the dead letters by reason, each origin once.
func (f *Log) Letters(t testing.TB) map[events.Reason]int64 {
	t.Helper()
	counts := map[events.Reason]int64{}
	seen := map[events.Origin]bool{}
	f.ReadAll(t, events.DeadLetterTopic(f.Topic), func(r *events.Record) {
		l, err := events.ParseDeadLetter(r)
		if err != nil {
			t.Fatalf("dead letter at offset %d: %v", r.Offset, err)
		}
		if !seen[l.Origin] {
			seen[l.Origin] = true
			counts[l.Reason]++
		}
	})
	return counts
}

// LettersByOrigin reads the dead letters, with a client that keeps null and empty apart.
func (f *Log) LettersByOrigin(t *testing.T) map[events.Origin]*events.DeadLetter {
	t.Helper()
	out := map[events.Origin]*events.DeadLetter{}
	for _, r := range f.Read(t, events.DeadLetterTopic(f.Topic)) {
		rec := events.Record{Topic: r.Topic, Offset: r.Offset, Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			rec.Headers = append(rec.Headers, events.Header{Key: h.Key, Value: h.Value})
		}
		l, err := events.ParseDeadLetter(&rec)
		if err != nil {
			t.Fatal(err)
		}
		out[l.Origin] = l
	}
	return out
}

// ReadAll reads partition 0 of a topic.
func (f *Log) ReadAll(t testing.TB, topic string, each func(*events.Record)) {
	t.Helper()
	res, err := f.Client.ListOffsets(t.Context(), &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{topic: {kafkago.LastOffsetOf(0)}}})
	if err != nil {
		t.Fatal(err)
	}
	end := res.Topics[topic][0].LastOffset
	if end == 0 {
		return
	}
	dialer := &kafkago.Dialer{Timeout: enginetest.Patience} // by default it gives up after ten seconds
	conn, err := dialer.DialLeader(t.Context(), "tcp", f.Brokers, topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for at := int64(0); at < end; {
		batch := conn.ReadBatch(1, 8<<20)
		for {
			m, err := batch.ReadMessage()
			if err != nil {
				break
			}
			r := events.Record{Topic: topic, Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Time}
			for _, h := range m.Headers {
				r.Headers = append(r.Headers, events.Header{Key: h.Key, Value: h.Value})
			}
			each(&r)
			at = m.Offset + 1
		}
		if err := batch.Close(); err != nil && at < end {
			t.Fatal(err)
		}
	}
}

// Read returns all records of partition 0 of a topic.
func (f *Log) Read(t *testing.T, topic string) []*kgo.Record {
	t.Helper()
	at, err := f.Client.ListOffsets(t.Context(), &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{topic: {kafkago.LastOffsetOf(0)}}})
	if err != nil {
		t.Fatal(err)
	}
	end := at.Topics[topic][0].LastOffset
	client, err := kgo.NewClient(kgo.SeedBrokers(f.Brokers), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var out []*kgo.Record
	for int64(len(out)) < end {
		got := client.PollFetches(t.Context())
		if err := got.Err0(); err != nil {
			t.Fatal(err)
		}
		out = append(out, got.Records()...)
	}
	return out
}
