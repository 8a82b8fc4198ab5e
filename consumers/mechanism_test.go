package consumers_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/sinks/clickhouse"
)

// Each mechanism of exactly-once is taken out here, and the fault that it is there for must then do damage. The
// mechanisms mask each other, so each has a fault that only it is good against. That the same fault does no damage with
// the mechanism in place is what the other tests show.

// red fails the test unless there are differences of this sort, and none of the other.
func red(t *testing.T, without string, differences []string, sort, none string) {
	t.Helper()
	found := false
	for _, d := range differences {
		found = found || strings.HasPrefix(d, sort)
		if none != "" && strings.HasPrefix(d, none) {
			t.Errorf("without %s: %s", without, d)
		}
	}
	if !found {
		t.Errorf("without %s nothing is wrong with the %s, so nothing shows that it works: %q", without, sort, differences)
	}
}

// noDeadline is a store whose rows the server takes at any time. Its client gives up as ever.
type noDeadline struct{ consumers.UsageStore }

func (s noDeadline) Insert(ctx context.Context, in *clickhouse.Intent, b *clickhouse.Block, first, last int) error {
	ctx, cancel := context.WithDeadline(ctx, in.InsertBy.Add(time.Second))
	defer cancel()
	late := *in
	late.InsertBy = in.InsertBy.Add(time.Hour)
	return s.UsageStore.Insert(ctx, &late, b, first, last)
}

func TestWithoutTheDeadlineALateInsertDoublesRows(t *testing.T) {
	t.Parallel()
	late := lateInsert{takeover: true, store: func(s consumers.UsageStore) consumers.UsageStore { return noDeadline{s} }}
	f, want, answer := late.run(t, 21)
	if answer != 0 {
		t.Fatalf("the server refused the late insert with code %d", answer)
	}
	red(t, "the deadline", f.differences(t, want), "rows: ", "")
}

// unsettled is a store that lets intents be: what an insert of unknown outcome has left is looked up, as ever, but not
// completed.
type unsettled struct{ consumers.UsageStore }

func (unsettled) Await(context.Context, *clickhouse.Intent, clickhouse.Settling) (*clickhouse.Landed, error) {
	return &clickhouse.Landed{}, nil
}

func (unsettled) Complete(context.Context, *clickhouse.Intent, *clickhouse.Landed) (clickhouse.Settled, error) {
	return clickhouse.Settled{}, nil
}

func TestWithoutTheIntentAKillLeavesViewsIncomplete(t *testing.T) {
	t.Parallel()
	for name, takeover := range map[string]bool{"of ClickHouse": false, "of ClickHouse and of the service": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kill := killBetweenRowsAndViews{takeover: takeover, store: func(s consumers.UsageStore) consumers.UsageStore { return unsettled{s} }}
			f, want := kill.run(t, 31)
			red(t, "the intent", f.differences(t, want), "views: daily", "rows: ")
		})
	}
}

// newTokens is a store that makes a new deduplication token for every insert. The range of the intent is a part of the
// token, and of nothing else that is sent.
type newTokens struct {
	consumers.UsageStore
	n *atomic.Int64
}

func (s newTokens) Insert(ctx context.Context, in *clickhouse.Intent, b *clickhouse.Block, first, last int) error {
	other := *in
	other.To += 1_000_000 + s.n.Add(1)
	return s.UsageStore.Insert(ctx, &other, b, first, last)
}

func TestWithoutTheTokenALostAnswerDoublesViews(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	messages, want := traffic(t, model.Config{Seed: 51, Count: 1500, Resends: 0.02})
	f.publish(t, messages)
	proxy := enginetest.Proxy(t, hostOf(t, f.dsn))
	lost := proxy.SwallowResponse(isInsert)
	c := faulty(400)
	c.insertTimeout = unhurried // the insert whose answer is lost must have landed
	c.dsn = via(t, f.dsn, proxy.Addr())
	c.store = func(s consumers.UsageStore) consumers.UsageStore { return newTokens{s, new(atomic.Int64)} }
	c.uncorrected = true // the views would be right again, when the time of the insert is over
	stop := f.start(t, c)
	kafkatest.Await(t, "the answer of an insert to be lost", lost.Caught())
	f.finish(t, stop)
	// The rows are right: those that landed twice are found by their places, and deleted.
	red(t, "the token", f.differences(t, want), "views: daily", "rows: ")
}

// credulous is a store that finds no event in the table, whatever it holds.
type credulous struct{ consumers.UsageStore }

func (credulous) Find(context.Context, *clickhouse.Block, []int) ([]clickhouse.Match, error) {
	return nil, nil
}

func (credulous) FindIdentity(context.Context, string, int, int64, *clickhouse.Block, []int) ([]clickhouse.Match, error) {
	return nil, nil
}

func TestResendsAndRedeliveredEventsAreFoundByTheIdentityCheckAlone(t *testing.T) {
	t.Parallel()
	with := func(s consumers.UsageStore) consumers.UsageStore { return s }
	without := func(s consumers.UsageStore) consumers.UsageStore { return credulous{s} }
	for name, c := range map[string]struct {
		resends     float64
		redelivered bool
		store       func(consumers.UsageStore) consumers.UsageStore
		wrong       bool
	}{
		"resent":                                {resends: 0.1, store: with},
		"resent, without the check":             {resends: 0.1, store: without, wrong: true},
		"redelivered":                           {redelivered: true, store: with},
		"redelivered, without the check":        {redelivered: true, store: without, wrong: true},
		"neither, without the check":            {store: without},
		"resent and redelivered":                {resends: 0.1, redelivered: true, store: with},
		"resent and redelivered, without check": {resends: 0.1, redelivered: true, store: without, wrong: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{partitions: 1})
			messages, want := traffic(t, model.Config{Seed: 52, Count: 700, Resends: c.resends})
			f.publish(t, messages)
			service := faulty(100)
			service.insertTimeout = 0 // nothing is late here
			service.store = c.store
			f.finish(t, f.start(t, service))
			if c.redelivered {
				// Another group begins at the start of the log. It cuts the batches in other places, or the
				// tokens would be the same and do the work of the check.
				f.Group += ".again"
				service.rows = 70
				f.finish(t, f.start(t, service))
			}
			if c.wrong {
				red(t, "the identity check", f.differences(t, want), "rows: ", "dead letters: ")
			} else {
				f.verify(t, want)
			}
		})
	}
}
