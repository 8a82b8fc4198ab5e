package consumers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"tenantflow/consumers"
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
