package consumers_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/internal/directory"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/sinks/dragonfly"
)

// The snapshot that the store restarts from has a batch announced and not counted, and the batch after it has not begun. What stands
// there is what the consumer has left there, so only the new connection tells that the counts are gone.
func TestABatchThatASnapshotHasOnlyAnnouncedIsCountedAgain(t *testing.T) {
	t.Parallel()
	for _, idle := range []bool{false, true} {
		t.Run(map[bool]string{false: "others follow", true: "nothing follows"}[idle], func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: 1}, enginetest.Persist(engine.Snapshot))
			messages, want := recent(t, model.Config{Seed: 31, Count: 1000})
			f.know(want, 80)
			at := 3 // of ten batches or more
			if idle {
				at = 1
				messages, want = recent(t, model.Config{Seed: 31, Count: 60})
			}
			failed := make(chan error, 1)
			ctx := context.WithoutCancel(t.Context())
			announced, counted := 0, 0
			step := func(s consumers.QuotaStep) {
				if s == consumers.QuotaAnnounced {
					if announced++; announced == at {
						failed <- f.client.Save(ctx).Err()
					}
				}
				if s == consumers.QuotaCounted {
					if counted++; counted == at {
						failed <- errors.Join(<-failed, f.redis.Kill(), f.redis.Start(ctx))
					}
				}
			}
			f.publish(t, messages)
			f.count(t, quotaConsumer{rows: 100, interval: 200 * time.Millisecond, onStep: step})
			f.check(t, want, time.Minute)
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// careful sees that nobody says that nothing is half counted while something is.
type careful struct {
	consumers.QuotaSession
	t testing.TB
}

func (c careful) Move(ctx context.Context, from, to dragonfly.Progress) (dragonfly.Progress, error) {
	if to.Clean() && to.Done < from.Pending {
		c.t.Errorf("the range [%d, %d) was half counted, and is forgotten at %d", from.Done, from.Pending, to.Done)
	}
	return c.QuotaSession.Move(ctx, from, to)
}

func TestARangeThatWasFoundHalfCountedStaysSoUntilItIsCounted(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	messages, want := recent(t, model.Config{Seed: 37, Count: 300})
	f.know(want, 80)
	f.publish(t, messages)
	f.crashAt(t, consumers.QuotaCounted, 1)
	// The batch comes long after the partition was first found idle.
	f.count(t, quotaConsumer{rows: 10_000, interval: 4 * time.Second, session: crashSession,
		wrap: func(s consumers.QuotaSession) consumers.QuotaSession { return careful{s, t} }})
	f.check(t, want, time.Minute)
}

// aged is a store that comes back after the identities of what is half counted were forgotten.
type aged struct {
	consumers.QuotaSession
	past    *atomic.Bool // that much time has passed since they were counted
	counted func() error // after the calls were counted; nil: nothing happens
}

func (a aged) Window() time.Duration {
	if a.past.Load() {
		return time.Nanosecond
	}
	return a.QuotaSession.Window()
}

func (a aged) Begin(ctx context.Context, p dragonfly.Progress, partitions int, now time.Time) error {
	a.past.Store(false)
	return a.QuotaSession.Begin(ctx, p, partitions, now)
}

func (a aged) Count(ctx context.Context, epoch int64, calls []dragonfly.Call) ([]dragonfly.Counted, error) {
	answers, err := a.QuotaSession.Count(ctx, epoch, calls)
	if err == nil && a.counted != nil {
		err = a.counted()
	}
	return answers, err
}

// forget lets the time pass after which identities expire.
func (f *quotaFixture) forget(ctx context.Context, past *atomic.Bool) error {
	defer past.Store(true)
	seen, err := f.client.Keys(ctx, "quota_seen:*").Result()
	if err != nil || len(seen) == 0 {
		return errors.Join(err, errors.New("there are no identities"))
	}
	return f.client.Del(ctx, seen...).Err()
}

func TestABatchThatIsTriedAgainAfterItsIdentitiesAreForgottenIsCountedAnew(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	messages, want := recent(t, model.Config{Seed: 53, Count: 1000})
	f.know(want, 80)
	ctx := context.WithoutCancel(t.Context())
	var past atomic.Bool
	failed := make(chan error, 1)
	var answers atomic.Int32
	counted := func() error {
		if answers.Add(1) != 3 {
			return nil
		}
		failed <- f.forget(ctx, &past)
		return errors.New("the answer was lost, and the store was away for hours")
	}
	f.publish(t, messages)
	f.count(t, quotaConsumer{rows: 100, wrap: func(s consumers.QuotaSession) consumers.QuotaSession { return aged{s, &past, counted} }})
	f.check(t, want, time.Minute)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// slowUsers is a Postgres that answers long after it was asked for the first time.
type slowUsers struct {
	members
	asked func()
}

func (u slowUsers) Resolve(ctx context.Context, users []string, out []*directory.Subscription) error {
	u.asked()
	return u.members.Resolve(ctx, users, out)
}

func TestARangeThatWasFoundHalfCountedAndWaitedTooLongIsCountedAnew(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	messages, want := recent(t, model.Config{Seed: 59, Count: 1000})
	f.know(want, 80)
	f.publish(t, messages)
	f.crashAt(t, consumers.QuotaCounted, 2)
	ctx := context.WithoutCancel(t.Context())
	var past atomic.Bool
	failed := make(chan error, 1)
	first := nth(1, func() { failed <- f.forget(ctx, &past) })
	f.count(t, quotaConsumer{rows: 100, session: crashSession, users: slowUsers{f.members, first},
		wrap: func(s consumers.QuotaSession) consumers.QuotaSession { return aged{QuotaSession: s, past: &past} }})
	f.check(t, want, time.Minute)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}
