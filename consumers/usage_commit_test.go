package consumers_test

import (
	"testing"
	"time"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

func TestMembersThatComeAndGoUnderLoadLoseAndDoubleNothing(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{broker: broker, partitions: 6})
		const rounds, portion = 5, 1000
		messages, want := traffic(t, model.Config{Seed: 11, Count: rounds * portion, Resends: 0.05, Conflicts: 0.005, Late: 0.05, LateSpan: 30 * 24 * time.Hour,
			Malformed: 0.01, Structured: 0.1})
		stays := f.Join(t, f.usage(t), kafkatest.Brisk)
		for round := range rounds {
			f.publish(t, messages[round*portion:(round+1)*portion])
			guest := f.Join(t, f.usage(t), kafkatest.Brisk)
			enginetest.Await(t, "the guest gets partitions", func() bool { return guest.Partitions() > 0 })
			if err := guest.Stop(); err != nil { // under load: the portion is not consumed yet, or just so
				t.Fatal(err)
			}
		}
		f.AwaitConsumed(t)
		if err := stays.Stop(); err != nil {
			t.Fatal(err)
		}
		f.verify(t, want)
		if n := stays.Metric(t, "tenantflow_rebalances_total", nil); n < rounds {
			t.Errorf("the member that stayed saw %v generations", n)
		}
	})
}

// The first commit of what is done is late on its way. Its sender goes on, and an insert of it is late as well. Then the
// commit arrives, the owner dies, its heir consumes everything, and at last the insert arrives.
func TestCommit_UnansweredEndsTheGeneration(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{partitions: 1, broker: broker})
		messages, want := traffic(t, model.Config{Seed: 21, Count: 200, Start: time.Date(2025, 11, 20, 1, 0, 0, 0, time.UTC)})
		late := kafkatest.NewLateRequest(kafkatest.OfDone(f.Topic))
		proxy := enginetest.Proxy(t, hostOf(t, f.dsn))
		c := faulty(1000)
		c.insertTimeout = 15 * time.Second // the held insert arrives in time
		c.dsn = via(t, f.dsn, proxy.Addr())
		c.dial = late.Dial
		stop := f.start(t, c)
		f.publish(t, messages[:100])
		kafkatest.Await(t, "the commit of what is done to be held", late.Caught)
		f.AwaitConsumed(t) // by another commit
		held := proxy.HoldRequest(isInsert)
		f.publish(t, messages[100:])
		kafkatest.Await(t, "the insert to be held", held.Caught())
		intended := f.Positions(t)[0]
		if intended.Metadata == "" {
			t.Fatalf("there is no intent: %+v", intended)
		}
		close(late.Release)
		kafkatest.Await(t, "the first commit to arrive", late.Sent)
		// It has no intent. A service that was given no time for the held insert meanwhile may have got further.
		if now := f.Positions(t)[0]; now.Metadata == "" && now.Committed <= intended.Committed || now.Committed < intended.Committed {
			t.Errorf("the late commit was taken: %+v, then %+v", intended, now)
		}
		proxy.Refuse(true)
		_ = stop() // its owner dies
		proxy.Refuse(false)
		c = faulty(70)
		c.insertTimeout = 15 * time.Second
		f.finish(t, f.start(t, c))
		held.Release()
		// Nothing says that the insert was refused; a later query of the same kind has seen what it did.
		f.settled(t)
		f.verify(t, want)
	})
}

// insertsUnderWay asks ClickHouse how many inserts it works on.
const insertsUnderWay = "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO usage_tracking%'"

// settled waits until ClickHouse runs no insert any more.
func (f *fixture) settled(t *testing.T) {
	t.Helper()
	quiet := time.Now().Add(2 * time.Second)
	enginetest.Await(t, "the inserts to be over", func() bool {
		if f.count(t, insertsUnderWay) > 0 {
			quiet = time.Now().Add(2 * time.Second)
		}
		return time.Now().After(quiet)
	})
}
