package kafka_test

import (
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// A producer that gets everything wrong fills the dead letters, and must not fill the log as well. One letter of them is too
// large for their topic.
func TestDeadLetters_LogOneAndSumUpTheRest(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		f.Limit(t, events.DeadLetterTopic(f.Topic), 100_000)
		var log kafkatest.Transcript
		count := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "letters"}, []string{"topic", "reason"})
		letters := kafka.NewDeadLetters(f.Client, f.Group, log.Logger(), count)
		const n, large = 1000, 613
		all := make([]kafka.DeadLetter, n)
		for i := range all {
			all[i] = kafka.DeadLetter{Attempts: 1, Rejection: events.Reject(events.Conflict, "words"),
				Record: events.Record{Topic: f.Topic, Offset: int64(i), Key: []byte("k"), Value: []byte("v")}}
		}
		all[large].Record.Value = make([]byte, 200_000)
		if err := letters.Publish(t.Context(), all, func(error) {}); err != nil {
			t.Fatal(err)
		}
		if err := letters.Close(); err != nil {
			t.Fatal(err)
		}
		if got := f.Letters(t); got[events.Conflict] != n-1 || got[events.TooLarge] != 1 {
			t.Errorf("published %v", got)
		}
		said := log.String()
		if lines := strings.Count(said, "\n"); lines > 10 {
			t.Errorf("%d lines of log", lines)
		}
		for _, words := range []string{"offset=0 ", "reason=conflict events=", "first.offset=1 ", "offset=613 reason=too_large", "metric=tenantflow_dead_letters_total"} {
			if !strings.Contains(said, words) {
				t.Errorf("the log does not say %q:\n%s", words, said)
			}
		}
		// A busy machine may take longer than one interval for it, and then there are more lines that sum up, and more that tell of one.
		summed := strings.Count(said, "reason=conflict error=")
		for _, found := range regexp.MustCompile(`reason=conflict events=(\d+)`).FindAllStringSubmatch(said, -1) {
			more, err := strconv.Atoi(found[1])
			if err != nil {
				t.Fatal(err)
			}
			summed += more
		}
		if summed != n-1 { // one is too large
			t.Errorf("the log tells of %d conflicts, want %d:\n%s", summed, n-1, said)
		}
		if got := testutil.ToFloat64(count.WithLabelValues(f.Topic, "conflict")); got != n-1 {
			t.Errorf("the metric counts %v conflicts", got)
		}
	})
}

// Those of a key stay in their order, also around one that is nearly as large as a topic takes.
func TestDeadLetters_KeepTheirOrder(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		letters := kafka.NewDeadLetters(f.Client, f.Group, slog.New(slog.DiscardHandler), nil)
		all := make([]kafka.DeadLetter, 100)
		for i := range all {
			all[i] = kafka.DeadLetter{Attempts: 1, Rejection: events.Reject(events.Conflict, "words"),
				Record: events.Record{Topic: f.Topic, Offset: int64(i), Key: []byte("k"), Value: make([]byte, 50_000)}}
		}
		all[40].Record.Value = make([]byte, 950_000)
		if err := letters.Publish(t.Context(), all, func(error) {}); err != nil {
			t.Fatal(err)
		}
		if err := letters.Close(); err != nil {
			t.Fatal(err)
		}
		read := f.Read(t, events.DeadLetterTopic(f.Topic))
		if len(read) != len(all) {
			t.Fatalf("%d letters, want %d", len(read), len(all))
		}
		for i, r := range read {
			if len(r.Value) != len(all[i].Record.Value) {
				t.Errorf("letter %d has %d bytes, want %d", i, len(r.Value), len(all[i].Record.Value))
			}
		}
	})
}
