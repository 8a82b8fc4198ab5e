package kafka_test

import (
	"errors"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// Many partitions are looked at at once.
func TestBehind_LooksAtManyPartitions(t *testing.T) {
	t.Parallel()
	const partitions = 32
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), partitions, brokersTime)
	b := &kafka.Behind{Client: f.Client, Group: f.Group, Topic: f.Topic}
	defer b.Close()
	for n := int64(1); n <= 3; n++ {
		done := map[int]int64{}
		for id := range partitions {
			produce(t, f, id, "a")
			done[id] = n
		}
		for range 2 {
			gaps, err := b.Look(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range gaps {
				if g.Records != 1 || g.Oldest.IsZero() {
					t.Errorf("of a record in each: %+v", g)
				}
			}
		}
		f.CommitOutside(t, done)
	}
}

// What the brokers alone say of a group: how many records it has not done, and how old the oldest is by the broker's time.
func TestBehind_CountsAndAgesWhatAGroupHasNotDone(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 3, brokersTime)
		b := &kafka.Behind{Client: f.Client, Group: f.Group, Topic: f.Topic}
		defer b.Close()
		look := func() []kafka.Gap {
			t.Helper()
			gaps, err := b.Look(t.Context())
			if err != nil || len(gaps) != 3 {
				t.Fatalf("%d gaps, %v", len(gaps), err)
			}
			return gaps
		}
		for _, g := range look() {
			if g.Committed != -1 || g.Records != 0 || g.End != 0 || !g.Oldest.IsZero() {
				t.Errorf("of an empty log: %+v", g)
			}
		}
		first := produce(t, f, 1, "a")
		second := produce(t, f, 1, "b")
		produce(t, f, 2, "c")
		within := func(g kafka.Gap, a appended) bool {
			const exact = 50 * time.Millisecond // two clocks of one machine
			return !g.Oldest.Before(a.from.Add(-exact)) && !g.Oldest.After(a.to.Add(exact))
		}
		for range 2 { // the second answers from what is known
			if g := look()[1]; g.Committed != -1 || g.Records != 2 || g.End != 2 || !within(g, first) {
				t.Errorf("nothing is done: %+v, want 2 since %s", g, first.from)
			}
		}
		// Everything before the oldest that is not done is stored.
		if until, err := b.StoredUntil(t.Context()); err != nil || !within(kafka.Gap{Oldest: until}, first) {
			t.Errorf("nothing is done: stored until %s, %v, want %s", until, err, first.from)
		}
		f.CommitOutside(t, map[int]int64{1: 1, 2: 1})
		if g := look(); g[1].Committed != 1 || g[1].Records != 1 || !within(g[1], second) || g[2].Records != 0 || !g[2].Oldest.IsZero() {
			t.Errorf("one of two is done: %+v, want 1 since %s", g, second.from)
		}
		f.Truncate(t, 1, 2)
		if g := look()[1]; g.Records != 0 || g.End != 2 {
			t.Errorf("what is left was deleted: %+v", g)
		}
		// The record that was next was deleted unread: whether it had its effects is not known, until the group says where it goes on.
		if until, err := b.StoredUntil(t.Context()); err == nil {
			t.Errorf("what was next is gone: stored until %s, want an error", until)
		}
		f.CommitOutside(t, map[int]int64{1: 2})
		asked := time.Now()
		if until, err := b.StoredUntil(t.Context()); err != nil || until.Before(asked) {
			t.Errorf("nothing is left: stored until %s, %v, want %s", until, err, asked)
		}
		missing := &kafka.Behind{Client: f.Client, Group: f.Group, Topic: f.Topic + ".missing"}
		defer missing.Close()
		if _, err := missing.Look(t.Context()); !errors.Is(err, kafkago.UnknownTopicOrPartition) {
			t.Errorf("of no topic: %v", err)
		}
	})
}
