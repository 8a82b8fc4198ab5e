package consumers_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
)

// A producer that gets everything wrong fills the dead letters, and must not fill the log as well. One letter of them is too
// large for their topic.
func TestDeadLetters_LogAFewAndSumUpTheRest(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 1)
		f.limit(t, events.DeadLetterTopic(f.topic), 100_000)
		var log transcript
		count := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "letters"}, []string{"topic", "reason"})
		letters := consumers.NewDeadLetters(f.client, f.group, slog.New(slog.NewTextHandler(&log, nil)), count)
		const n, large = 1000, 613
		all := make([]consumers.DeadLetter, n)
		for i := range all {
			all[i] = consumers.DeadLetter{Attempts: 1, Rejection: events.Reject(events.Conflict, "words"),
				Record: events.Record{Topic: f.topic, Offset: int64(i), Key: []byte("k"), Value: []byte("v")}}
		}
		all[large].Record.Value = make([]byte, 200_000)
		if err := letters.Publish(t.Context(), all, func(error) {}); err != nil {
			t.Fatal(err)
		}
		if err := letters.Close(); err != nil {
			t.Fatal(err)
		}
		if got := f.letters(t); got[events.Conflict] != n-1 || got[events.TooLarge] != 1 {
			t.Errorf("published %v", got)
		}
		said := log.String()
		if lines := strings.Count(said, "\n"); lines > 10 {
			t.Errorf("%d lines of log", lines)
		}
		for _, words := range []string{"offset=0 ", "reason=conflict events=994", "reason=too_large events=1"} {
			if !strings.Contains(said, words) {
				t.Errorf("the log does not say %q:\n%s", words, said)
			}
		}
		if got := testutil.ToFloat64(count.WithLabelValues(f.topic, "conflict")); got != n-1 {
			t.Errorf("the metric counts %v conflicts", got)
		}
	})
}
