package consumers_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"tenantflow/consumers"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/sinks/dragonfly"
)

func TestAStoreWithoutMemoryIsWaitedForAndCountsExactlyAfterwards(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	messages, want := recent(t, model.Config{Seed: 31, Count: 3000, Resends: 0.05})
	f.know(want, 30)
	short := make(chan struct{})
	refused := sync.OnceFunc(func() { close(short) })
	f.count(t, quotaConsumer{rows: 200, wrap: func(s consumers.QuotaSession) consumers.QuotaSession { return starved{s, refused} }})
	f.publish(t, messages[:1000])
	f.AwaitConsumed(t)
	limit := f.info(t, "memory", "maxmemory")
	f.configure(t, "maxmemory", strconv.FormatInt(f.number(t, "memory", "used_memory")/2, 10))
	f.publish(t, messages[1000:])
	kafkatest.Await(t, "an error for want of memory", short)
	f.configure(t, "maxmemory", limit)
	f.check(t, want)
}

func TestQuota_AKillWhileMemoryIsShortLosesNothing(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	messages, want := recent(t, model.Config{Seed: 37, Count: 4000, Resends: 0.05, Companies: 100, UsersPerCompany: 10})
	f.know(want, 6)
	stop := f.count(t, quotaConsumer{rows: 100, session: crashSession})
	f.publish(t, messages[:100])
	f.AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.publish(t, messages[100:])
	limit := f.info(t, "memory", "maxmemory")
	for _, room := range []int64{0, 50_000, 100_000} { // it runs out before anything, and amid the calls of a batch
		f.configure(t, "maxmemory", strconv.FormatInt(f.number(t, "memory", "used_memory")+room, 10))
		f.crashAt(t, stepRefused, 1)
	}
	f.configure(t, "maxmemory", limit)
	f.count(t, quotaConsumer{rows: 70, session: crashSession}) // cut otherwise
	f.check(t, want)
}

// The collector's limit leaves room for what is remembered of resends: as it grows, when a partition is taken over, and no longer
// when it is given up.
func TestQuota_TellsWhatItRemembers(t *testing.T) {
	t.Parallel()
	f := newQuotaFixture(t, fixtureOptions{partitions: 2})
	messages, want := recent(t, model.Config{Seed: 41, Count: 4000})
	f.know(want, 1000)
	var told atomic.Int64
	consumer := quotaConsumer{memory: func(bytes int64) { told.Add(bytes) }}
	stop := f.count(t, consumer)
	f.publish(t, messages[:3000])
	f.AwaitConsumed(t)
	const least = 3000 * 24 // bytes
	if told.Load() < least {
		t.Errorf("%d bytes are remembered of 3000 records", told.Load())
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if told.Load() != 0 {
		t.Errorf("%d bytes are remembered by none", told.Load())
	}
	f.count(t, consumer)
	f.publish(t, messages[3000:])
	f.check(t, want)
	if told.Load() < least {
		t.Errorf("%d bytes are remembered after a takeover", told.Load())
	}
}

// starved reports when the store has no memory for what it is to do.
type starved struct {
	consumers.QuotaSession
	refused func()
}

func (s starved) saw(err error) error {
	if err != nil && (strings.Contains(err.Error(), "OOM") || strings.Contains(strings.ToLower(err.Error()), "out of memory")) {
		s.refused()
	}
	return err
}

func (s starved) Count(ctx context.Context, b dragonfly.Batch, calls []dragonfly.Call, into []dragonfly.Counted) ([]dragonfly.Counted, error) {
	counted, err := s.QuotaSession.Count(ctx, b, calls, into)
	return counted, s.saw(err)
}

func (s starved) Note(ctx context.Context, p dragonfly.Progress) error {
	return s.saw(s.QuotaSession.Note(ctx, p))
}
