package consumers_test

import (
	"hash/fnv"
	"log/slog"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// addPartitionsAndKnow adds partitions and has the fixture's producers know of them, and each of them a leader.
func (f *fixture) addPartitionsAndKnow(t *testing.T, count int) {
	t.Helper()
	f.AddPartitions(t, count)
	f.RenewClient(t)
	enginetest.Await(t, "the new partitions have leaders", func() bool { return f.Leaders(t) == count })
}

// publishTo publishes messages as a producer does that knows of some partitions of the topic only.
func (f *fixture) publishTo(t *testing.T, messages []model.Message, partitions int) {
	t.Helper()
	balancer := kafkago.BalancerFunc(func(m kafkago.Message, _ ...int) int {
		h := fnv.New32a()
		_, _ = h.Write(m.Key)
		return int(h.Sum32() % uint32(partitions))
	})
	w := enginetest.Writer(f.Client)
	w.Topic, w.Balancer, w.BatchTimeout = f.Topic, balancer, 5*time.Millisecond
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), kafkaMessages(messages)...); err != nil {
		t.Fatal(err)
	}
}

// tracked gives a consumer a health tracker, which says how many partitions it owns and what it waits for.
func tracked(c consumer) (consumer, func() health.PartReport) {
	tracker := health.New(time.Minute, slog.New(slog.DiscardHandler), "usage")
	c.health = tracker
	return c, func() health.PartReport { return tracker.Readiness().Parts[0] }
}

func TestUsage_ResendsAfterPartitionsWereAdded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		broker  func(testing.TB) *engine.Kafka
		age     time.Duration // of the events, when they are published first
		restart bool          // the partitions are added between two runs of the service
	}{
		"running, embedded":             {broker: enginetest.SharedKafka},
		"running, apache":               {broker: enginetest.SharedApacheKafka},
		"running, events of hours ago":  {broker: enginetest.SharedKafka, age: 5 * time.Hour},
		"restarted":                     {broker: enginetest.SharedKafka, restart: true},
		"restarted, events of long ago": {broker: enginetest.SharedKafka, age: 5 * time.Hour, restart: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{partitions: 4, broker: c.broker(t)})
			messages, want := traffic(t, model.Config{Seed: 61, Count: 60, Start: time.Now().Add(-c.age - time.Minute)})
			stop := f.start(t, faulty(1000))
			f.publish(t, messages)
			f.AwaitConsumed(t)
			if c.restart {
				if err := stop(); err != nil {
					t.Fatal(err)
				}
			}
			f.addPartitionsAndKnow(t, 7)
			// This producer learns of them at once, the group does not. The resend of most keys goes elsewhere.
			f.publish(t, messages)
			if c.restart {
				stop = f.start(t, faulty(1000))
			}
			f.finish(t, stop)
			f.verify(t, want)
		})
	}
}

// A producer may go on for minutes with the number of partitions it knows, and resend with the new one.
func TestUsage_StaleProducersAfterPartitionsWereAdded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 4})
	stale := *f // its producer keeps the old number
	before, _ := traffic(t, model.Config{Seed: 62, Count: 40, Start: time.Now().Add(-time.Minute)})
	c, report := tracked(faulty(1000))
	stop := f.start(t, c)
	f.publish(t, before)
	f.AwaitConsumed(t)
	f.addPartitionsAndKnow(t, 7)
	enginetest.Await(t, "the group to own the new partitions", func() bool { return report().Partitions == 7 })

	messages, want := traffic(t, model.Config{Seed: 63, Count: 60, Start: time.Now()})
	stale.publishTo(t, messages, 4)
	f.AwaitConsumed(t)
	f.publishTo(t, messages, 7)
	f.finish(t, stop)
	if n := f.count(t, "SELECT count() FROM usage_tracking"); int64(n) != want.Tables.Rows+40 {
		t.Errorf("%d rows, want %d", n, want.Tables.Rows+40)
	}
}

// A topic that is replaced by another one (a new prefix, a mirrored log) brings events again that the table holds.
func TestUsage_ResendsFromAnotherTopic(t *testing.T) {
	t.Parallel()
	type order struct{ both, back bool }
	for name, c := range map[string]order{"one after the other": {}, "both at once": {both: true}, "both at once, to the older one": {both: true, back: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			older := newFixture(t, fixtureOptions{partitions: 2})
			newer := newFixture(t, fixtureOptions{partitions: 3, dsn: older.dsn})
			messages, want := traffic(t, model.Config{Seed: 64, Count: 80, Start: time.Now().Add(-time.Minute)})
			first, second := older, newer
			stopFirst, stopSecond := older.start(t, faulty(1000)), func() error { return nil }
			first.publish(t, messages[:1])
			first.AwaitConsumed(t)
			if c.both {
				stopSecond = newer.start(t, faulty(1000))
				newer.publish(t, messages[:1])
				newer.AwaitConsumed(t)
			}
			if c.back {
				first, second = newer, older
				stopFirst, stopSecond = stopSecond, stopFirst
			}
			first.publish(t, messages[1:])
			first.AwaitConsumed(t)
			if !c.both {
				if err := stopFirst(); err != nil {
					t.Fatal(err)
				}
				stopSecond = newer.start(t, faulty(1000))
			}
			second.publish(t, messages)
			second.finish(t, stopSecond)
			older.verify(t, want)
		})
	}
}

func TestUsage_ASecondGroupOnOneTopicIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 2})
	messages, want := traffic(t, model.Config{Seed: 65, Count: 100})
	stop := f.start(t, faulty(1000))
	f.publish(t, messages[:50])
	f.AwaitConsumed(t)

	second := *f
	second.Group += ".second"
	c, report := tracked(faulty(1000))
	stopSecond := second.start(t, c)
	enginetest.Await(t, "the second group to be refused", func() bool {
		return strings.Contains(report().Reason, "two groups would store every event twice")
	})
	f.publish(t, messages[50:])
	f.AwaitConsumed(t)
	for id, p := range second.Positions(t) {
		if p.Committed > 0 {
			t.Errorf("partition %d: the second group has committed %d", id, p.Committed)
		}
	}
	// It takes over when the first has stopped.
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	second.finish(t, stopSecond)
	f.verify(t, want)
}

// jumpedClock is a store whose clock was an hour ahead for one deadline.
type jumpedClock struct {
	consumers.UsageStore
	done bool
}

func (s *jumpedClock) Deadline() time.Time {
	d := s.UsageStore.Deadline()
	if !s.done {
		s.done = true
		return d.Add(time.Hour)
	}
	return d
}

func TestUsage_AClockThatJumpedOnceHoldsNothingUp(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	messages, want := traffic(t, model.Config{Seed: 66, Count: 200})
	proxy := enginetest.Proxy(t, hostOf(t, f.dsn))
	c := faulty(1000)
	c.dsn = via(t, f.dsn, proxy.Addr())
	c.store = func(s consumers.UsageStore) consumers.UsageStore { return &jumpedClock{UsageStore: s} }
	stop := f.start(t, c)
	f.publish(t, messages[:100])
	f.AwaitConsumed(t)
	lost := proxy.SwallowResponse(isInsert)
	f.publish(t, messages[100:])
	kafkatest.Await(t, "the answer of an insert to be lost", lost.Caught())
	f.finish(t, stop)
	f.verify(t, want)
}
