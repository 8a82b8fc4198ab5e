package kafka_test

import (
	"errors"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

func TestStoredLog_SaysUpToWhenAllIsDone(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 3, brokersTime)
		l := kafka.NewStoredLog(f.Client, f.Group, f.Topic)
		defer l.Close()
		covers := func(what string, at time.Time, want bool) {
			t.Helper()
			reach, err := l.Look(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := reach.Covers(at); got != want {
				t.Errorf("%s: usage is done %s, and covers %s: %v", what, reach, at, got)
			}
		}
		now := time.Now()
		covers("an empty log", now, true)
		first := produce(t, f, 1, "a")
		produce(t, f, 1, "b")
		last := produce(t, f, 2, "c")
		covers("nothing is done", first.from.Add(-time.Minute), true)
		covers("nothing is done, at the first record", first.to, false)
		covers("nothing is done, at the last", last.to, false)
		covers("nothing is done, and the clocks of two brokers differ", first.from.Add(-500*time.Millisecond), false)
		f.CommitOutside(t, map[int]int64{1: 2})
		covers("one partition is done", last.to, false)
		covers("one partition is done, before the other", first.from.Add(-time.Minute), true)
		f.CommitOutside(t, map[int]int64{1: 2, 2: 1})
		covers("all is done", time.Now().Add(time.Hour), true)
		f.CommitOutside(t, map[int]int64{1: 2, 2: 5})
		covers("of another log", first.from.Add(-time.Minute), false)

		var got string
		for offset, want := range []string{"a", "b", "b"} { // there is no third
			if err := l.Record(t.Context(), 1, int64(offset), func(r *events.Record) { got = string(r.Value) }); err != nil || got != want {
				t.Errorf("record %d is %q, %v", offset, got, err)
			}
		}
		for id, want := range map[int]bool{0: true, 2: true, 3: false} {
			if there, err := l.HasPartition(t.Context(), id); err != nil || there != want {
				t.Errorf("partition %d is there: %v, %v", id, there, err)
			}
		}
		missing := kafka.NewStoredLog(f.Client, f.Group, f.Topic+".missing")
		defer missing.Close()
		if _, err := missing.Look(t.Context()); !errors.Is(err, kafkago.UnknownTopicOrPartition) {
			t.Errorf("of no topic: %v", err)
		}
	})
}
