package verify_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/verify"
	"tenantflow/sinks/postgres"
)

// Two processes share one schedule: each slot is one run, what it found is a metric of both, and a later run takes it back.
func TestSchedule_EachSlotIsOneRun(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if last, err := verify.Last(t.Context(), store); err != nil || last != nil {
		t.Errorf("before the first run: %+v, %v", last, err)
	}
	var atWork, most, runs atomic.Int64
	var different, ending atomic.Bool
	different.Store(true)
	working, stop := context.WithCancel(t.Context())
	defer stop()
	run := func(ctx context.Context, since time.Time) (*verify.Report, error) {
		if ending.Load() {
			stop() // while this process has the slot: one that is stopped as it takes a slot may have it without a run
		}
		most.Store(max(most.Load(), atWork.Add(1)))
		defer atWork.Add(-1)
		if ago := time.Since(since); ago < 25*time.Minute || ago > time.Hour {
			t.Errorf("a run looks %s back", ago)
		}
		if runs.Add(1) == 1 {
			return nil, errors.New("a store does not answer")
		}
		r := &verify.Report{Partitions: []verify.Partition{{Judged: 7}}}
		if runs.Load() == 2 { // a new installation
			r.Findings = verify.Findings{{Kind: verify.NotConsumed, Count: 1}}
			return r, ctx.Err()
		}
		if different.Load() {
			r.Findings = verify.Findings{{Kind: verify.WrongTotal, Count: 3}, {Kind: verify.TenantMismatch, Count: 5, Information: true}}
		}
		return r, ctx.Err()
	}
	var registries []*prometheus.Registry
	ended := make(chan struct{}, 2)
	for range 2 {
		registry := prometheus.NewRegistry()
		registries = append(registries, registry)
		s := verify.NewSchedule(verify.ScheduleConfig{Interval: time.Second, Poll: 100 * time.Millisecond, Slots: store, Verify: run, Registry: registry})
		go func() {
			s.Run(working)
			ended <- struct{}{}
		}()
	}
	shows := func(value float64) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
		defer cancel()
		for i, registry := range registries {
			if err := enginetest.Eventually(ctx, func() bool {
				return drift(t, registry, "wrong_total") == value && drift(t, registry, "missing") == 0 && drift(t, registry, "not_consumed") == -1
			}); err != nil {
				t.Fatalf("process %d shows %g, want %g", i, drift(t, registry, "wrong_total"), value)
			}
		}
	}
	shows(3)
	if last, err := verify.Last(t.Context(), store); err != nil || last == nil || last.Differences[verify.WrongTotal] != 3 {
		t.Errorf("the last outcome is %+v, %v", last, err)
	}
	different.Store(false)
	shows(0)
	if last, err := verify.Last(t.Context(), store); err != nil || last == nil || last.Offsets != 7 || len(last.Differences) != 0 || time.Since(last.Started) > time.Minute {
		t.Errorf("the last outcome is %+v, %v", last, err)
	}
	ending.Store(true)
	<-ended
	<-ended
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var slots, failed, running int64
	if err := conn.QueryRow(t.Context(), "SELECT count(*), count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'running') FROM job_slots").
		Scan(&slots, &failed, &running); err != nil {
		t.Fatal(err)
	}
	if slots != runs.Load() || failed < 2 || running != 0 || most.Load() != 1 {
		t.Errorf("%d slots, %d failed, %d running, for %d runs, of which %d at a time", slots, failed, running, runs.Load(), most.Load())
	}
}

// drift reads how many differences of a kind are shown; -1: none is.
func drift(t *testing.T, registry *prometheus.Registry, kind string) float64 {
	t.Helper()
	all, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		for _, m := range family.GetMetric() {
			if family.GetName() == "tenantflow_drift_differences" && m.GetLabel()[0].GetValue() == kind {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// The next runs look at a difference again, so it stays in the metric until it is mended.
func TestSchedule_LooksAgainAtWhatIsOpen(t *testing.T) {
	t.Parallel()
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: postgrestest.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	var mu sync.Mutex
	var looks []time.Time
	run := func(ctx context.Context, since time.Time) (*verify.Report, error) {
		mu.Lock()
		defer mu.Unlock()
		looks = append(looks, since)
		r := &verify.Report{Partitions: []verify.Partition{{Judged: 7}}}
		switch len(looks) {
		case 2:
			r.Findings = verify.Findings{{Kind: verify.WrongTotal, Count: 3}}
		case 3:
			r.Findings = verify.Findings{{Kind: verify.WrongTotal, Count: 3}}
			r.Unproven = []string{"a partition did not answer"}
		}
		return r, ctx.Err()
	}
	ctx, stop := context.WithCancel(t.Context())
	s := verify.NewSchedule(verify.ScheduleConfig{Interval: time.Second, Poll: 100 * time.Millisecond, Slots: store, Verify: run})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	enginetest.Await(t, "there were five runs", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(looks) >= 5
	})
	stop()
	<-ended
	if !looks[2].Equal(looks[1]) || !looks[3].Equal(looks[1]) || !looks[1].After(looks[0]) || !looks[4].After(looks[1]) {
		t.Errorf("the runs looked back to %v; the second and third left something open", looks)
	}
}

// A process that dies gives its job up when its lease ends, and a slot is taken once.
func TestSchedule_DeadProcessGivesItsJobUp(t *testing.T) {
	t.Parallel()
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: postgrestest.New(t), Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	slot := time.Now().UTC().Truncate(time.Hour)
	take := func(at time.Time, lease time.Duration) bool {
		t.Helper()
		taken, err := store.BeginSlot(t.Context(), "test", at, lease)
		if err != nil {
			t.Fatal(err)
		}
		return taken
	}
	if !take(slot, time.Hour) || take(slot, time.Minute) || take(slot.Add(time.Hour), time.Minute) {
		t.Error("a job has two processes at a time")
	}
	if ours, err := store.RenewSlot(t.Context(), "test", slot, time.Second); err != nil || !ours { // its last sign of life
		t.Fatal(ours, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool { return take(slot.Add(time.Hour), time.Minute) }); err != nil {
		t.Error("the job stays with a process that is gone")
	}
	if ours, err := store.RenewSlot(t.Context(), "test", slot, time.Minute); err != nil || ours {
		t.Errorf("the slot that was lost is still kept: %v %v", ours, err)
	}
	if last, err := store.LastSlot(t.Context(), "test"); err != nil || last != nil {
		t.Errorf("nothing was done, and the last slot is %+v, %v", last, err)
	}
}
