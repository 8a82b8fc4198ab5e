package model

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/topic"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// newTopics makes a client, and all topics with a prefix of the test's own.
func newTopics(t testing.TB, broker *engine.Kafka) (client *kafka.Client, prefix string) {
	t.Helper()
	prefix = strings.ReplaceAll(t.Name(), "/", ".") + "."
	client = enginetest.KafkaClient(t, broker.Addr())
	if _, err := topic.Ensure(t.Context(), client, topic.All(topic.Settings{Prefix: prefix})); err != nil {
		t.Fatal(err)
	}
	return client, prefix
}

func TestPublishedMessagesArriveUnchangedAndResendsBehindTheirOriginals(t *testing.T) {
	t.Parallel()
	client, prefix := newTopics(t, enginetest.SharedKafka(t))
	config := Config{Seed: 9, Count: 20_000, Start: time.Now().Add(-time.Hour), Resends: 0.1, Conflicts: 0.1, Malformed: 0.1, Structured: 0.2}
	g, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []int{5000, 0} {
		if _, err := Publish(t.Context(), g, Publishing{Client: client, Topic: prefix + "usage.events", Limit: part}); err != nil {
			t.Fatal(err)
		}
	}

	// What is in the log is compared as a multiset, and by key in order.
	want, wantByKey := map[string]int{}, map[string][]string{}
	text := func(key []byte, headers []events.Header, value []byte) string {
		s := fmt.Sprintf("%q %v %q %v", key, key == nil, value, value == nil)
		for _, h := range headers {
			s += fmt.Sprintf(" %s=%q", h.Key, h.Value)
		}
		return s
	}
	again, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	var m Message
	for again.Next(&m) {
		s := text(m.Key, m.Headers, m.Value)
		want[s]++
		if m.Key != nil {
			wantByKey[string(m.Key)] = append(wantByKey[string(m.Key)], s)
		}
	}
	partitions := map[int]bool{}
	err = ReadTopic(t.Context(), client, prefix+"usage.events", func(r *events.Record) error {
		partitions[r.Partition] = true
		s := text(r.Key, r.Headers, r.Value)
		want[s]--
		if want[s] == 0 {
			delete(want, s)
		}
		if key := string(r.Key); r.Key != nil {
			if len(wantByKey[key]) == 0 || wantByKey[key][0] != s {
				return fmt.Errorf("out of order: %s", s)
			}
			wantByKey[key] = wantByKey[key][1:]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Errorf("%d messages are missing or too many", len(want))
	}
	if len(partitions) != 8 {
		t.Errorf("the messages are in %d partitions, want 8", len(partitions))
	}
}

func TestPublishingSaysHowManyWereAcknowledgedBeforeTheBrokerWentAway(t *testing.T) {
	t.Parallel()
	broker := enginetest.Kafka(t)
	client, prefix := newTopics(t, broker)
	g, err := New(Config{Count: 10_000, Start: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	publishing := Publishing{Client: client, Topic: prefix + "usage.events", Limit: 3000, Attempts: 2}
	if n, err := Publish(t.Context(), g, publishing); n != 3000 || err != nil {
		t.Fatalf("published %d, %v", n, err)
	}
	publishing.Limit = 0
	publishing.Progress = func(int) {
		if err := broker.Kill(); err != nil {
			t.Error(err)
		}
	}
	if n, err := Publish(t.Context(), g, publishing); n >= 7000 || err == nil {
		t.Errorf("published %d of 7000 to a broker that is gone, %v", n, err)
	}
}

func TestDeadLettersAreCountedByOrigin(t *testing.T) {
	t.Parallel()
	client, prefix := newTopics(t, enginetest.SharedKafka(t))
	publisher, err := topic.NewPublisher(t.Context(), client, prefix+"usage.events.dlq", 0)
	if err != nil {
		t.Fatal(err)
	}
	write := func(offset int64, reason events.Reason) {
		t.Helper()
		origin := &events.Record{Topic: "usage.events", Partition: 3, Offset: offset, Key: []byte("k"), Value: []byte("{")}
		key, value, headers := events.NewDeadLetter(origin, "tenantflow.usage", events.Reject(reason, "because"), 1, time.Now())
		m := kafka.Message{Key: key, Value: value}
		for _, h := range headers {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		if err := publisher.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	write(1, events.MalformedData)
	write(1, events.MalformedData) // after a crash between writing it and committing the offset
	write(2, events.MalformedData)
	write(3, events.Conflict)
	if err := publisher.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := ReadDeadLetters(t.Context(), client, prefix+"usage.events.dlq")
	if err != nil {
		t.Fatal(err)
	}
	want := map[events.Reason]int64{events.MalformedData: 2, events.Conflict: 1}
	if d := CompareDeadLetters(got, want); len(d) > 0 {
		t.Error(Describe(d))
	}
}

func BenchmarkPublish(b *testing.B) {
	for name, broker := range map[string]*engine.Kafka{"embedded": enginetest.Kafka(b), "apache": enginetest.ApacheKafka(b)} {
		client, prefix := newTopics(b, broker)
		b.Run(name, func(b *testing.B) {
			g, err := New(Config{Count: b.N, Start: time.Now(), Resends: 0.01, Late: 0.01, Malformed: 0.001})
			if err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			if _, err := Publish(b.Context(), g, Publishing{Client: client, Topic: prefix + "usage.events"}); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
