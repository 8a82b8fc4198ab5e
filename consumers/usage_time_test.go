package consumers_test

import (
	"fmt"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
)

// A backlog is judged as it would have been when it was published: what lay in the future of its record is refused, although its time has
// come since, and an offset that is set back changes no verdict. Only so do rows, counters and replays agree.
func TestUsage_TheFutureIsThatOfTheRecord(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	now := time.Now().Truncate(time.Millisecond)
	at := func(id string, record, timestamp time.Time) kafkago.Message {
		m := kafkago.Message{Topic: f.Topic, Key: []byte("u1"), Time: record, Value: fmt.Appendf(nil,
			`{"company_id":"c1","user_id":"u1","subscription_tier":"pro","service_name":"s","data_points_consumed":1,"processing_time_ms":1,"api_endpoint":"/x","timestamp":%q}`,
			timestamp.UTC().Format(time.RFC3339Nano))}
		for _, h := range [][2]string{{"ce_specversion", "1.0"}, {"ce_type", events.TypeUsageRecorded}, {"ce_source", "/t"}, {"ce_id", id},
			{"ce_time", timestamp.UTC().Format(time.RFC3339Nano)}, {"content-type", "application/json"}} {
			m.Headers = append(m.Headers, kafkago.Header{Key: h[0], Value: []byte(h[1])})
		}
		return m
	}
	w := enginetest.Writer(f.Client)
	w.BatchTimeout = time.Millisecond
	t.Cleanup(func() { _ = w.Close() })
	early := now.Add(-5 * time.Hour)
	if err := w.WriteMessages(t.Context(),
		at("future then", early, early.Add(2*time.Hour)), // three hours ago by now
		at("present then", early, early.Add(30*time.Minute)),
		at("future then", early.Add(time.Hour+time.Minute), early.Add(2*time.Hour)), // resent when it was not in the future any more
		at("too old then", early, early.Add(-events.DefaultMaxAge-time.Minute)),
	); err != nil {
		t.Fatal(err)
	}
	f.start(t, consumer{})
	f.AwaitConsumed(t)
	var rows, letters string
	if err := f.db.QueryRow(t.Context(), "SELECT arrayStringConcat(arraySort(groupArray(concat(event_id, ' at ', toString(_offset)))), ', ') FROM usage_tracking").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if want := "future then at 2, present then at 1"; rows != want {
		t.Errorf("rows: %s, want %s", rows, want)
	}
	for offset := range int64(4) {
		if l := f.LettersByOrigin(t)[events.Origin{Group: f.Group, Topic: f.Topic, Partition: 0, Offset: offset}]; l != nil {
			letters += fmt.Sprintf("%s at %d ", l.Reason, offset)
		}
	}
	if want := "timestamp_in_future at 0 timestamp_too_old at 3 "; letters != want {
		t.Errorf("dead letters: %s, want %s", letters, want)
	}
}
