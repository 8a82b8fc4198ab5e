package kafka

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/events"
	"tenantflow/internal/logs"
)

// malformed are letters of a producer that gets everything wrong, beginning at an offset.
func malformed(from int64, n int) []DeadLetter {
	letters := make([]DeadLetter, n)
	for i := range letters {
		id := fmt.Sprint("event-", from+int64(i), strings.Repeat("x", 2000))
		letters[i] = DeadLetter{Attempts: 1, Rejection: events.Reject(events.MalformedData, "line %d", i), Record: events.Record{
			Topic: "usage.events", Partition: i % 8, Offset: from + int64(i), Headers: []events.Header{{Key: "ce_id", Value: []byte(id)}}}}
	}
	return letters
}

// wait lets the time of a bubble of synctest pass.
func wait(d time.Duration) { <-time.After(d) }

func TestDeadLetters_AFloodDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		count := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "letters"}, []string{"topic", "reason"})
		d := &DeadLetters{tally: newLetterTally(slog.New(slog.NewTextHandler(&log, nil))), count: count}
		const n, atOnce = 200_000, 1000
		for from := int64(0); from < n; from += atOnce {
			d.note(malformed(from, atOnce))
			wait(100 * time.Millisecond)
		}
		d.tally.Close()
		text := log.String()
		lines := strings.Count(text, "\n")
		if lines > 10 || len(text) > 10_000 {
			t.Errorf("%d lines, %d bytes", lines, len(text))
		}
		for _, words := range []string{
			`msg="event went to the dead letters" topic=usage.events partition=0 offset=0 event_id=event-0x`, `reason=malformed_data error="line 0"`,
			`msg="more events went to the dead letters" topic=usage.events reason=malformed_data events=`, "first.partition=1 first.offset=1 first.event_id=event-1x",
			"metric=tenantflow_dead_letters_total",
		} {
			if !strings.Contains(text, words) {
				t.Errorf("the log does not say %q:\n%s", words, text)
			}
		}
		if got := testutil.ToFloat64(count.WithLabelValues("usage.events", "malformed_data")); got != n {
			t.Errorf("the metric counts %v", got)
		}
	})
}

func TestDeadLetters_AFewAreALineEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := &DeadLetters{tally: newLetterTally(slog.New(slog.NewTextHandler(&log, nil)))}
		d.note(malformed(0, 2))
		wait(2 * logs.TallyInterval)
		d.note(malformed(2, 1))
		d.tally.Close()
		if n := strings.Count(log.String(), `msg="event went to the dead letters"`); n != 3 || strings.Count(log.String(), "\n") != 3 {
			t.Errorf("got\n%s", log.String())
		}
	})
}

func BenchmarkDeadLetters_Note(b *testing.B) {
	d := &DeadLetters{tally: newLetterTally(slog.New(slog.DiscardHandler))}
	letters := malformed(0, 1000)
	b.ReportAllocs()
	for b.Loop() {
		d.note(letters)
	}
	d.tally.Close()
}

func TestDeadLetters_CountedOnesAllocateNothing(t *testing.T) {
	d := &DeadLetters{tally: newLetterTally(slog.New(slog.DiscardHandler))}
	defer d.tally.Close()
	few, many := malformed(0, 10), malformed(0, 1000)
	d.note(few)
	each := testing.AllocsPerRun(10, func() { d.note(many) }) - testing.AllocsPerRun(10, func() { d.note(few) })
	if each > 1 {
		t.Errorf("990 more letters cost %v allocations", each)
	}
}
