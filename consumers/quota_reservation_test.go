package consumers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

// naming has a usage event name a reservation.
func naming(m kafkago.Message, reservation string) kafkago.Message {
	m.Value = bytes.Replace(m.Value, []byte("{"), []byte(`{"reservation_id":"`+reservation+`",`), 1)
	return m
}

// A gateway is what a service does that serves users: it reserves before it serves.
type gateway struct {
	*dragonfly.Store
}

// gateway opens the fixture's store. Holds that may have been forgotten are waited for as long as longest.
func (f *quotaFixture) gateway(t testing.TB, longest time.Duration) gateway {
	t.Helper()
	store, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: enginetest.RedisOptions(t, f.url), Topic: f.Topic, LongestHold: longest})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return gateway{store}
}

// hold asks for one call, again and again until there is an answer.
func (g gateway) hold(ctx context.Context, user, id string, limit int64) (dragonfly.Reserved, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got, _, err := g.Reserve(ctx, dragonfly.Reservation{User: user, ID: id, Calls: 1, TTL: dragonfly.LongestHold, CallLimit: limit, PointsLimit: -1}, false)
		if err == nil {
			return got, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return got, err
		}
	}
}

// expect asks for one call and compares the answer.
func (g gateway) expect(t testing.TB, user, id string, limit int64, want dragonfly.Decision, counted, held int64) {
	t.Helper()
	got, err := g.hold(t.Context(), user, id, limit)
	if err != nil || got.Decision != want || got.Counted.APICalls != counted || got.Held.APICalls != held {
		t.Errorf("%s: got %s with %d counted and %d held, %v; want %s with %d and %d", id, got.Decision, got.Counted.APICalls, got.Held.APICalls, err, want, counted, held)
	}
}

func TestReservation_AnEventEndsTheHoldItNames(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	f.count(t, quotaConsumer{})
	g, now := f.gateway(t, 0), time.Now()
	g.expect(t, "u", "r-1", 3, dragonfly.Granted, 0, 1)
	g.expect(t, "u", "r-2", 3, dragonfly.Granted, 0, 2)
	f.send(t, naming(used("1", "acme", "u", now), "r-1"))
	f.eventuallyCalls(t, "u", now, 1)
	g.expect(t, "u", "r-2", 3, dragonfly.Held, 1, 1)
	// A resend counts nothing, so it ends nothing; an event without a reservation, or with one that is gone, counts.
	f.send(t, naming(used("1", "acme", "u", now), "r-2"), used("2", "acme", "u", now), naming(used("3", "acme", "u", now), "r-1"))
	f.eventuallyCalls(t, "u", now, 3)
	g.expect(t, "u", "r-2", 3, dragonfly.Held, 3, 1)
	g.expect(t, "u", "r-3", 3, dragonfly.Exceeded, 3, 1)
	// Two events of one batch, and one that names what is no reservation.
	f.send(t, naming(used("4", "acme", "u", now), "r-2"), naming(used("5", "acme", "u", now), "r-2"), naming(used("6", "acme", "u", now), "r 2"))
	f.eventuallyCalls(t, "u", now, 6)
	g.expect(t, "u", "r-3", 7, dragonfly.Granted, 6, 1)
	f.checkExpiry(t)
}

// What was put off ends its holds when it is counted.
func TestReservation_AnEventThatWaitsKeepsItsHold(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	now := time.Now()
	users := &changing{users: deferring("elsewhere", now.Add(longAfter))}
	f.count(t, quotaConsumer{users: users, deferFor: longAfter})
	g := f.gateway(t, 0)
	g.expect(t, "late", "r-1", 3, dragonfly.Granted, 0, 1)
	g.expect(t, "late", "r-2", 3, dragonfly.Granted, 0, 2)
	f.send(t, naming(used("1", "acme", "late", now), "r-1"), naming(used("2", "acme", "u1", now), "r-1"))
	f.eventuallyCalls(t, "u1", now, 1)
	g.expect(t, "late", "r-2", 3, dragonfly.Held, 0, 2)
	users.set(deferring("acme", time.Time{}))
	f.eventuallyCalls(t, "late", now, 1)
	g.expect(t, "late", "r-2", 3, dragonfly.Held, 1, 1)
}

// A store that was emptied has forgotten its holds. What they stood for may be under way until they would have ended.
func TestReservation_ALostStoreRefusesWhileHoldsLast(t *testing.T) {
	t.Parallel()
	const longest = 2 * time.Second
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	f.count(t, quotaConsumer{})
	g, now := f.gateway(t, longest), time.Now()
	g.expect(t, "u", "r-1", 5, dragonfly.Granted, 0, 1) // at once: there was nothing to lose
	f.send(t, used("1", "acme", "u", now), used("2", "acme", "u", now))
	f.eventuallyCalls(t, "u", now, 2)
	f.AwaitConsumed(t)
	lost := time.Now()
	f.flush(t)
	ask := dragonfly.Reservation{User: "u", ID: "r-2", Calls: 1, TTL: time.Second, CallLimit: 5, PointsLimit: -1}
	var unsure *dragonfly.RebuildingError
	if got, _, err := g.Reserve(t.Context(), ask, false); !errors.As(err, &unsure) {
		t.Errorf("at once: %+v, %v", got, err)
	}
	if got, rebuilding, err := g.Reserve(t.Context(), ask, true); err != nil || !rebuilding || got.Decision != dragonfly.Granted {
		t.Errorf("granted anyway: %+v, rebuilding %t, %v", got, rebuilding, err)
	}
	if err := g.Release(t.Context(), "u", "r-2"); err != nil {
		t.Fatal(err)
	}
	known := false
	enginetest.Await(t, "a reservation to be granted again", func() bool {
		got, _, err := g.Reserve(t.Context(), ask, false)
		known = known || errors.As(err, &unsure) && unsure.After > 0
		if err == nil && (got.Decision != dragonfly.Granted || got.Counted.APICalls != 2 || got.Held.APICalls != 1) {
			t.Errorf("granted again: %+v, want 2 counted", got)
		}
		return err == nil
	})
	if waited := time.Since(lost); waited < longest || !known {
		t.Errorf("granted %s after the loss, want at least %s; it was said how long it takes: %t", waited, longest, known)
	}
}

// What is published while a recount goes on lies behind the end that it was noted to last to.
func TestQuota_ALongRebuildLastsUntilItHasCaughtUp(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	g, now := f.gateway(t, 0), time.Now()
	var lost atomic.Bool
	recounts, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	formed := 0
	f.count(t, quotaConsumer{onStep: func(s consumers.QuotaStep) {
		if s != consumers.QuotaFormed || !lost.Load() {
			return
		}
		once.Do(func() {
			close(recounts)
			<-goOn
		})
		formed++
		if busy, err := g.Rebuilding(t.Context()); err != nil || !busy {
			t.Errorf("batch %d behind the loss: rebuilding %t, %v; what was published before is not counted yet", formed, busy, err)
		}
	}})
	f.send(t, used("1", "acme", "u", now), used("2", "acme", "u", now))
	f.eventuallyCalls(t, "u", now, 2)
	f.AwaitConsumed(t)
	lost.Store(true)
	f.flush(t)
	<-recounts
	began := time.Now()
	f.send(t, used("3", "acme", "u", now), used("4", "acme", "u", now))
	const long = 3 * time.Second
	enginetest.Await(t, "the recount to take long", func() bool { return time.Since(began) > long })
	close(goOn)
	f.eventuallyCalls(t, "u", now, 4)
	enginetest.Await(t, "the rebuild to end", func() bool {
		busy, err := g.Rebuilding(t.Context())
		return err == nil && !busy
	})
}

// Holds that the server has not written down are forgotten when it is killed, whatever it remembers of the counters.
func TestReservation_AnotherServerRefusesWhileHoldsLast(t *testing.T) {
	t.Parallel()
	const longest = 3 * time.Second
	f := newQuotaFixture(t, fixtureOptions{partitions: 1}, enginetest.Persist(engine.Snapshot))
	f.count(t, quotaConsumer{})
	g, now := f.gateway(t, longest), time.Now()
	f.send(t, used("1", "acme", "u", now))
	f.eventuallyCalls(t, "u", now, 1)
	g.expect(t, "u", "r-1", 5, dragonfly.Granted, 1, 1)
	if err := errors.Join(f.client.Save(t.Context()).Err(), f.redis.Kill()); err != nil {
		t.Fatal(err)
	}
	lost := time.Now()
	if err := f.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.expect(t, "u", "r-2", 5, dragonfly.Granted, 1, 2) // the first one was in the snapshot
	if waited := time.Since(lost); waited < longest {
		t.Errorf("granted %s after the kill, want at least %s", waited, longest)
	}
}

// Callers reserve, serve and publish, or release, while the process that counts is killed at every border of its steps, and the store as well.
// Whatever happens, no user is served beyond the limit, and in the end each is served up to it: no hold was lost, and none left over.
func TestReservation_KillsGrantNothingBeyondTheLimit(t *testing.T) {
	t.Parallel()
	const limit, callers = 12, 64
	users := enginetest.Number(t, "TENANTFLOW_TEST_RESERVING_USERS", 16)
	rounds := enginetest.Number(t, "TENANTFLOW_TEST_RESERVATION_KILLS", 1)
	seed := uint64(time.Now().UnixNano()) // #nosec G115 -- any number
	t.Logf("seed %d", seed)
	f := newQuotaFixture(t, fixtureOptions{partitions: 2}, enginetest.Persist(engine.AppendOnly))
	f.members = members{Company: map[string]string{}, Limit: limit}
	name := func(n int) string { return fmt.Sprint("u", n) }
	for n := range users {
		f.members.Company[name(n)] = "acme"
	}
	// What an append-only file has survives a kill, so nothing is forgotten and the wait may be short. Holds outlive the test.
	g := f.gateway(t, time.Second)
	writer := enginetest.Writer(f.Client)
	writer.Topic, writer.Balancer, writer.BatchTimeout = f.Topic, &kafkago.Hash{}, time.Millisecond
	t.Cleanup(func() { _ = writer.Close() })
	published := make([]atomic.Int64, users)
	serving, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	for caller := range callers {
		random := rand.New(rand.NewPCG(seed, uint64(caller))) // #nosec G115 -- any number
		working.Go(func() {
			pause := time.NewTicker(20 * time.Millisecond)
			defer pause.Stop()
			for n := 0; serving.Err() == nil; n++ {
				user, id := random.IntN(users), fmt.Sprintf("%d-%d", caller, n)
				got, err := g.hold(serving, name(user), id, limit)
				switch {
				case err != nil || got.Decision == dragonfly.Exceeded:
				case random.IntN(5) == 0:
					for serving.Err() == nil && g.Release(serving, name(user), id) != nil {
						<-pause.C
					}
				default:
					// Without the caller's end: an event that was published is counted.
					if err := writer.WriteMessages(context.WithoutCancel(serving), naming(used(id, "acme", name(user), time.Now()), id)); err != nil {
						t.Errorf("publish: %v", err)
					}
					published[user].Add(1)
				}
				<-pause.C
			}
		})
	}
	for range rounds {
		for _, step := range []consumers.QuotaStep{consumers.QuotaNoted, consumers.QuotaFormed, consumers.QuotaCounted} {
			f.crashAt(t, step, 1+rand.Int32N(2)) // #nosec G404 -- any number
		}
	}
	f.count(t, quotaConsumer{rows: 20, session: crashSession})
	for range rounds + 1 {
		if err := f.redis.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := f.redis.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.expectAny(t)
	}
	enginetest.Await(t, "every user to be served up to the limit", func() bool {
		for n := range users {
			if published[n].Load() < limit || f.calls(t, name(n), time.Now()) != fmt.Sprintf("%d %d", limit, 3*limit) {
				return false
			}
		}
		return true
	})
	stop()
	working.Wait()
	for n := range users {
		if got := published[n].Load(); got > limit {
			t.Errorf("%s was served %d times, want %d", name(n), got, limit)
		}
		g.expect(t, name(n), "last", limit, dragonfly.Exceeded, limit, 0)
	}
	f.checkExpiry(t)
}

// expectAny waits for an answer of whatever kind.
func (g gateway) expectAny(t testing.TB) {
	t.Helper()
	if got, err := g.hold(t.Context(), "other", "r", 0); err != nil || got.Decision != dragonfly.Exceeded {
		t.Errorf("%+v, %v", got, err)
	}
}
