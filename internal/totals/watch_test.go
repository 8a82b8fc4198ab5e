package totals

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/clickhouse"
)

// watch runs two Watchers, as two processes would, until the test ends, and returns what reads a metric of both.
func (f *fixture) watch(t *testing.T, store *clickhouse.Store) (metric func(name string) float64) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var registries []*prometheus.Registry
	ended := make(chan struct{}, 2)
	for range cap(ended) {
		registry := prometheus.NewRegistry()
		registries = append(registries, registry)
		w := NewWatcher(f.checker(t, f.options), store, WatchConfig{Interval: 100 * time.Millisecond, Registry: registry})
		go func() {
			w.Run(ctx)
			ended <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range cap(ended) {
			<-ended
		}
	})
	return func(name string) float64 {
		sum := 0.0
		for _, r := range registries {
			families, err := r.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, family := range families {
				if family.GetName() == name {
					sum += family.GetMetric()[0].GetCounter().GetValue() + family.GetMetric()[0].GetGauge().GetValue()
				}
			}
		}
		return sum
	}
}

func (f *fixture) pending(t *testing.T, store *clickhouse.Store) int {
	t.Helper()
	all, _, err := store.PendingRechecks(t.Context(), f.topic)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func (f *fixture) queue(t *testing.T, store *clickhouse.Store, from, to int64, reason clickhouse.RecheckReason) {
	t.Helper()
	r := clickhouse.Recheck{Topic: f.topic, From: from, To: to, NotBefore: store.Now(), Reason: reason}
	for range 2 { // as a caller does that got no answer
		if err := store.QueueRecheck(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatcher_CompletesTheTotalsOfARange(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	store := f.store(t)
	f.rows(t, 0, 50)
	// The next insert reaches the rows, and of the views only one: as a kill between them leaves it.
	f.exec(t, "DROP VIEW usage_daily_feed")
	f.exec(t, "DROP VIEW billing_monthly_feed")
	f.rows(t, 50, 80)
	f.commit(t, 80, "")
	metric := f.watch(t, store)
	f.queue(t, store, 50, 80, clickhouse.RecheckRowsFound)
	enginetest.Await(t, "the entry to be done", func() bool { return f.pending(t, store) == 0 })
	f.right(t)
	// One process counts what it has corrected after the other one may have found it right, and the entry done.
	enginetest.Await(t, "20 totals to be counted as corrected", func() bool { return metric("tenantflow_usage_totals_corrected_total") >= 20 })
	enginetest.Await(t, "the metric of pending entries to be 0", func() bool { return metric("tenantflow_usage_rechecks_pending") == 0 })
}

func TestWatcher_WaitsUntilTheRangeIsCommitted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	store := f.store(t)
	f.commit(t, 10, "tf1 20 1 0 202610:0000000000000001")
	f.watch(t, store)
	f.queue(t, store, 10, 20, clickhouse.RecheckUnknown)
	f.queue(t, store, 0, 10, clickhouse.RecheckUnknown) // without any row
	enginetest.Await(t, "the committed entry to be done", func() bool { return f.pending(t, store) == 1 })
	f.rows(t, 10, 20)
	f.exec(t, "TRUNCATE TABLE usage_hourly_store")
	f.commit(t, 20, "")
	enginetest.Await(t, "the other one to be done", func() bool { return f.pending(t, store) == 0 })
	f.right(t)
}

func TestWatcher_LowersOnlyWhatWasCountedTwice(t *testing.T) {
	t.Parallel()
	// Rows that stood there twice explain what is too much up to what they add up to; rows that were sent once more, exactly
	// what they add up to: a view had forgotten that it had them.
	for _, reason := range []clickhouse.RecheckReason{clickhouse.RecheckDoubled, clickhouse.RecheckRowsFound} {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			store := f.store(t)
			f.rows(t, 0, 50)
			f.rows(t, 20, 30) // twice: the views count these ten again
			f.exec(t, "ALTER TABLE usage_tracking DELETE WHERE _offset >= 20 AND _offset < 30 AND _insert_by > (SELECT min(_insert_by) FROM usage_tracking) SETTINGS mutations_sync = 2")
			f.commit(t, 50, "")
			if n := len(f.wrong(t)); n != 21 {
				t.Fatalf("%d totals are wrong, want 21", n)
			}
			f.watch(t, store)
			f.queue(t, store, 10, 20, clickhouse.RecheckRowsFound) // other rows, of the same keys
			enginetest.Await(t, "the entry to be done", func() bool { return f.pending(t, store) == 0 })
			if n := len(f.wrong(t)); n != 21 {
				t.Errorf("%d totals are wrong, want 21: rows may be missing", n)
			}
			f.queue(t, store, 20, 30, reason)
			enginetest.Await(t, "the entry to be done", func() bool { return f.pending(t, store) == 0 })
			f.right(t)
		})
	}
}

func TestRecheck_IsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	store := f.store(t)
	now := store.Now()
	later := clickhouse.Recheck{Topic: f.topic, Partition: 3, From: 7, To: 9, NotBefore: now.Add(time.Hour), Reason: clickhouse.RecheckUnknown}
	first := clickhouse.Recheck{Topic: f.topic, Partition: 2, From: 1, To: 1 << 40, NotBefore: now.Add(-time.Minute), Reason: clickhouse.RecheckDoubled}
	for _, r := range []clickhouse.Recheck{later, first, first, later} {
		if err := store.QueueRecheck(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	same := func(a, b clickhouse.Recheck) bool { return a.String() == b.String() && a.NotBefore.Equal(b.NotBefore) }
	got, due, err := store.PendingRechecks(t.Context(), f.topic)
	if err != nil || due != 1 || !slices.EqualFunc(got, []clickhouse.Recheck{first, later}, same) {
		t.Errorf("%v, %d due: %v", got, due, err)
	}
	if err := store.FinishRecheck(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := store.QueueRecheck(t.Context(), first); err != nil { // it came late
		t.Fatal(err)
	}
	got, due, err = store.PendingRechecks(t.Context(), f.topic)
	if err != nil || due != 0 || !slices.EqualFunc(got, []clickhouse.Recheck{later}, same) {
		t.Errorf("%v, %d due: %v", got, due, err)
	}
}
