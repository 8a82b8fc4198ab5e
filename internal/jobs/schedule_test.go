package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/jobs"
	"tenantflow/sinks/postgres"
)

const days = 24 * time.Hour

// A job that is new begins with its next slot. Two looks that lie 8 ms apart around it find it once, and so do two processes.
func TestSchedule_EachSlotIsOneRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:59:59.996Z")
	w := newWorker()
	all := []jobs.Job{w.job(events.JobBusinessMetrics, jobs.Hour, jobs.OnTime(15*time.Minute)), w.job(events.JobBillingExport, jobs.Month, jobs.Each(400*days, 14))}
	a, b := f.start(t, "", all...), f.start(t, "", all...)
	a.looked(t)
	b.looked(t)
	if got := f.slots(t); len(got) != 0 {
		t.Errorf("before its time: got %q, want nothing", got)
	}
	f.set(t, "2026-03-04T12:00:00.004Z")
	f.awaitSlots(t, "business_metrics 03-04 12 done")
	f.advance(t, 8*time.Millisecond)
	a.looked(t)
	b.looked(t)
	f.set(t, "2026-03-04T13:00:00Z")
	f.awaitSlots(t, "business_metrics 03-04 12 done", "business_metrics 03-04 13 done")
	if runs, most := w.total(); runs != 2 || most != 1 {
		t.Errorf("%d runs, %d at a time, want 2, one at a time", runs, most)
	}
	f.log.AwaitConsumed(t)
	want := map[string]bool{"maintenance.business_metrics_due.v1 03-04 12": true, "maintenance.business_metrics_done.v1 03-04 12": true,
		"maintenance.business_metrics_due.v1 03-04 13": true, "maintenance.business_metrics_done.v1 03-04 13": true}
	got := f.published(t)
	for name := range got {
		if !want[name] {
			t.Errorf("%s is published", name)
		}
	}
	if len(got) != len(want) {
		t.Errorf("published are %v", got)
	}
	if result := f.query(t, "SELECT result ->> 'slot' FROM job_slots ORDER BY slot"); !slices.Equal(result, []string{"2026-03-04T12:00:00Z", "2026-03-04T13:00:00Z"}) {
		t.Errorf("results %q", result)
	}
}

// After two weeks without a process, exactly the runs happen that the rules say.
func TestSchedule_TwoWeeksDown(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-20T10:30:00Z")
	w := newWorker()
	all := []jobs.Job{
		w.job(events.JobBillingExport, jobs.Month, jobs.Each(400*days, 14)),
		w.job(events.JobRecommendations, jobs.Week, jobs.Each(400*days, 14)),
		w.job(events.JobRetention, jobs.Day, jobs.OnlyLatest()),
		w.job(events.JobBackup, jobs.Hour, jobs.OnlyLatest()),
		w.job(events.JobBusinessMetrics, jobs.Hour, jobs.OnTime(15*time.Minute)),
	}
	first := f.start(t, "", all...)
	first.looked(t)
	first.stop()
	f.set(t, "2026-04-03T10:40:00Z")
	second := f.start(t, "", all...)
	f.awaitSlots(t, "backup 04-03 10 done", "billing_export 04-01 00 done", "recommendations 03-23 00 done", "recommendations 03-30 00 done", "retention 04-03 00 done")
	second.looked(t)
	if runs, most := w.total(); runs != 5 || most != 1 {
		t.Errorf("%d runs, %d of a job at a time, want 5, one at a time", runs, most)
	}
	// 336 hours and the one that has come late, of the others but the last one.
	for job, want := range map[string]string{"backup": "335", "billing_export": "0", "recommendations": "0", "retention": "13", "business_metrics": "336"} {
		if got := f.query(t, "SELECT missed::text FROM jobs WHERE job = $1", job); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: got %q missed, want %s", job, got, want)
		}
	}
	if got := second.metric(t, "tenantflow_job_slots_missed_total", events.JobBusinessMetrics); got != 336 {
		t.Errorf("the metric shows %g missed slots, want 336", got)
	}
}

// A clock that is set back plans nothing twice, and takes no slot away from the process that works on it.
func TestSchedule_ClockSetBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:59:00Z")
	w := newWorker()
	release := make(chan struct{})
	begun := make(chan struct{}, 10)
	w.hold = func(ctx context.Context, slot events.Slot) error {
		begun <- struct{}{}
		if slot.At.Hour() == 14 {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return nil
	}
	all := []jobs.Job{w.job(events.JobStorage, jobs.Hour, jobs.OnlyLatest())}
	a, b := f.start(t, "", all...), f.start(t, "", all...)
	a.looked(t)
	for _, now := range []string{"2026-03-04T12:00:01Z", "2026-03-04T13:00:01Z"} {
		f.set(t, now)
		<-begun
		enginetest.Await(t, "the slot is published", func() bool { return f.settled(t) })
	}
	f.set(t, "2026-03-04T11:00:01Z") // two hours back
	for _, now := range []string{"2026-03-04T12:00:01Z", "2026-03-04T12:30:00Z", "2026-03-04T13:00:01Z"} {
		a.looked(t)
		b.looked(t)
		f.set(t, now)
	}
	a.looked(t)
	b.looked(t)
	if runs, _ := w.total(); runs != 2 {
		t.Errorf("%d runs, want 2: the repeated hours have had theirs", runs)
	}
	f.set(t, "2026-03-04T14:00:01Z")
	<-begun
	f.set(t, "2026-03-04T12:00:01Z") // while it works
	a.looked(t)
	b.looked(t)
	if left := f.query(t, "SELECT (lease_until - job_clock())::text FROM job_slots WHERE state = 'running'"); !slices.Equal(left, []string{"00:02:00"}) {
		t.Errorf("the lease lasts %q, want two minutes: a process that dies would be waited for", left)
	}
	close(release)
	f.awaitSlots(t, "storage 03-04 12 done", "storage 03-04 13 done", "storage 03-04 14 done")
	f.set(t, "2026-03-04T15:00:00Z")
	f.awaitSlots(t, "storage 03-04 12 done", "storage 03-04 13 done", "storage 03-04 14 done", "storage 03-04 15 done")
	if runs, most := w.total(); runs != 4 || most != 1 {
		t.Errorf("%d runs, %d at a time, want 4, one at a time", runs, most)
	}
}

// A job that takes longer than its slot goes on, and the slots that come meanwhile are left out and counted.
func TestSchedule_LongerThanItsSlot(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:59:00Z")
	w := newWorker()
	release, begun := make(chan struct{}), make(chan struct{}, 10)
	w.hold = func(ctx context.Context, slot events.Slot) error {
		begun <- struct{}{}
		if slot.At.Hour() == 12 {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return nil
	}
	p := f.start(t, "", w.job(events.JobRetention, jobs.Hour, jobs.OnlyLatest()), w.job(events.JobDrift, jobs.Hour, jobs.Each(days, 24)))
	p.looked(t)
	f.set(t, "2026-03-04T12:00:00Z")
	<-begun
	<-begun
	for _, hour := range []string{"13", "14"} {
		// The clock of the test jumps, and the lease with it: within an hour the process would have moved it on.
		f.exec(t, "WITH clock AS (UPDATE test_clock SET at = $1) UPDATE job_slots SET lease_until = $1 + interval '2 minutes' WHERE state = 'running'", at("2026-03-04T"+hour+":00:00Z"))
		enginetest.Await(t, "the slot is planned", func() bool {
			return f.query(t, "SELECT count(*)::text FROM jobs WHERE planned_to = $1", at("2026-03-04T"+hour+":00:00Z"))[0] == "2"
		})
	}
	if skipped := p.metric(t, "tenantflow_job_slots_skipped_total", events.JobRetention); skipped != 2 {
		t.Errorf("the metric shows %g skipped slots, want 2", skipped)
	}
	close(release)
	enginetest.Await(t, "the long ones have ended", func() bool {
		return f.query(t, "SELECT count(*)::text FROM job_slots WHERE slot = $1 AND state = 'done'", at("2026-03-04T12:00:00Z"))[0] == "2"
	})
	f.set(t, "2026-03-04T15:00:00Z")
	f.awaitSlots(t, "drift 03-04 12 done", "drift 03-04 13 done", "drift 03-04 14 done", "drift 03-04 15 done",
		"retention 03-04 12 done", "retention 03-04 13 skipped", "retention 03-04 14 skipped", "retention 03-04 15 done")
	if got := f.query(t, "SELECT job || ' ' || skipped || ' ' || missed FROM jobs ORDER BY job"); !slices.Equal(got, []string{"drift 0 0", "retention 2 0"}) {
		t.Errorf("skipped and missed: %q", got)
	}
	if _, most := w.total(); most != 1 {
		t.Errorf("%d runs of a job at a time", most)
	}
}

// What has failed is tried again after a while that grows; what is not done when the next slot comes has failed for good, unless each slot counts.
func TestSchedule_FailureIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:59:00Z")
	w := newWorker()
	w.hold = func(_ context.Context, slot events.Slot) error {
		switch {
		case slot.At.Hour() == 12 && w.ran(slot.Job, slot.At.Format(time.RFC3339)) < 3:
			return errors.New("a store does not answer\x00")
		case slot.Job == events.JobStorage && slot.At.Hour() == 13:
			panic("a fault")
		}
		return nil
	}
	f.start(t, "", w.job(events.JobRetention, jobs.Hour, jobs.Each(days, 24)), w.job(events.JobStorage, jobs.Hour, jobs.OnlyLatest()))
	failed := func(attempts int) {
		t.Helper()
		want := []string{fmt.Sprintf("%d run job", attempts), fmt.Sprintf("%d run job", attempts)}
		enginetest.Await(t, fmt.Sprintf("%d attempts have failed", attempts), func() bool {
			return slices.Equal(f.query(t, "SELECT attempts || ' ' || left(error, 7) FROM job_slots WHERE state = 'queued' AND error <> ''"), want)
		})
	}
	enginetest.Await(t, "the jobs are known", func() bool { return f.query(t, "SELECT count(*)::text FROM jobs")[0] == "2" })
	f.set(t, "2026-03-04T12:00:00Z")
	failed(1)
	f.advance(t, time.Minute)
	failed(2)
	f.advance(t, 2*time.Minute)
	f.awaitSlots(t, "retention 03-04 12 done", "storage 03-04 12 done")
	f.set(t, "2026-03-04T13:00:00Z")
	enginetest.Await(t, "the panic is a failure", func() bool {
		return slices.Equal(f.query(t, "SELECT error FROM job_slots WHERE state = 'queued' AND error <> ''"), []string{"the job panicked: a fault"})
	})
	f.set(t, "2026-03-04T14:00:00Z")
	f.awaitSlots(t, "retention 03-04 12 done", "retention 03-04 13 done", "retention 03-04 14 done",
		"storage 03-04 12 done", "storage 03-04 13 failed", "storage 03-04 14 done")
}

// Work that can't be done yet is put off without being a failure, and nothing is late meanwhile.
func TestSchedule_NotYetIsNoFailure(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-11-30T23:59:00Z")
	w := newWorker()
	until := at("2026-12-02T00:30:00Z")
	var closed atomic.Bool
	w.hold = func(context.Context, events.Slot) error {
		if closed.Load() {
			return nil
		}
		return fmt.Errorf("close the month: %w", &jobs.NotYetError{Until: until, Why: "the grace period is not over"})
	}
	p := f.start(t, "", w.job(events.JobBillingExport, jobs.Month, jobs.Each(400*days, 14)))
	p.looked(t)
	attempts := func(n int, next string) {
		t.Helper()
		want := []string{fmt.Sprintf("%d the grace period is not over %s", n, next)}
		enginetest.Await(t, fmt.Sprintf("it was put off %d times", n), func() bool {
			return slices.Equal(f.query(t, "SELECT attempts || ' ' || error || ' ' || to_char(next_at AT TIME ZONE 'UTC', 'DD HH24:MI') FROM job_slots WHERE state = 'queued' AND error <> ''"), want)
		})
	}
	f.set(t, "2026-12-01T00:00:00Z")
	attempts(1, "01 01:00")
	f.set(t, "2026-12-02T00:00:00Z")
	attempts(2, "02 00:30")
	if since := f.query(t, "SELECT to_char(greatest(slot, not_before) AT TIME ZONE 'UTC', 'DD HH24:MI') FROM job_slots"); !slices.Equal(since, []string{"02 00:30"}) {
		t.Errorf("it is late since %q", since)
	}
	if got := p.outcomes(t, events.JobBillingExport); got["postponed"] != 2 || got["failed"] != 0 {
		t.Errorf("outcomes %v", got)
	}
	closed.Store(true)
	f.set(t, "2026-12-02T00:30:00Z")
	f.awaitSlots(t, "billing_export 12-01 00 done")
}

// A process that is asked to stop gives its slot back, and another one goes on at once.
func TestSchedule_StopHandsTheSlotOver(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:59:00Z")
	w := newWorker()
	begun := make(chan struct{}, 10)
	w.hold = func(ctx context.Context, slot events.Slot) error {
		begun <- struct{}{}
		if w.ran(slot.Job, slot.At.Format(time.RFC3339)) == 1 {
			<-ctx.Done()
		}
		return ctx.Err()
	}
	job := w.job(events.JobBillingExport, jobs.Hour, jobs.Each(days, 24))
	a := f.start(t, "", job)
	a.looked(t)
	f.set(t, "2026-03-04T12:00:00Z")
	<-begun
	a.stop()
	f.start(t, "", job)
	f.awaitSlots(t, "billing_export 03-04 12 done") // with the clock where it was: no lease had to end
	if got := f.query(t, "SELECT attempts || error FROM job_slots"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("attempts and error: %q", got)
	}
}

// Two processes after each other are killed at the same border between two steps; a third one ends what they have begun. Every slot has one effect, and what
// is published twice is one event.
func TestSchedule_KilledAtEveryBorder(t *testing.T) {
	t.Parallel()
	for _, border := range borders() {
		t.Run(border, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, "2026-03-04T11:59:00Z")
			w := newWorker()
			job := w.job(events.JobBillingExport, jobs.Hour, jobs.Each(days, 24))
			seen := f.start(t, "", job)
			seen.looked(t)
			seen.stop()
			f.set(t, "2026-03-04T12:00:00Z")
			deaths := 0
			for range 2 {
				p := f.start(t, border, job)
				enginetest.Await(t, "the process is killed, or everything is done", func() bool {
					select {
					case <-p.died:
						return true
					default:
						return slices.Equal(f.slots(t), []string{"billing_export 03-04 12 done"}) && f.settled(t)
					}
				})
				select {
				case <-p.died:
					deaths++
				default:
				}
				p.stop()
				f.advance(t, 2*time.Minute+time.Second) // the lease of the dead one ends
			}
			if deaths == 0 {
				t.Errorf("no process came to the border")
			}
			f.start(t, "", job)
			f.awaitSlots(t, "billing_export 03-04 12 done")
			f.log.AwaitConsumed(t)
			runs, most := w.total()
			if runs < 1 || runs > 1+deaths || most != 1 {
				t.Errorf("%d runs, %d at a time, after %d deaths", runs, most, deaths)
			}
			got := slices.Sorted(maps.Keys(f.published(t)))
			if want := []string{"maintenance.billing_export_done.v1 03-04 12", "maintenance.billing_export_due.v1 03-04 12"}; !slices.Equal(got, want) {
				t.Errorf("got events %q, want %q", got, want)
			}
		})
	}
}

// A process that has lost its slot, and does not know, can't end it.
func TestSchedule_LateProcessChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:59:00Z")
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: f.dsn, Timeout: enginetest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	slot := events.Slot{Job: events.JobBackup, At: at("2026-03-04T12:00:00Z")}
	if err := store.RegisterJobs(t.Context(), map[string]string{slot.Job: "hour"}); err != nil {
		t.Fatal(err)
	}
	if asked, err := store.AskForSlot(t.Context(), slot, "a test"); err != nil || !asked {
		t.Fatal(asked, err)
	}
	if asked, err := store.AskForSlot(t.Context(), slot, "a test"); err != nil || asked {
		t.Errorf("a slot that is under way was asked for: %t, %v", asked, err)
	}
	if queued, err := store.QueueSlots(t.Context(), []events.Slot{slot, {Job: slot.Job, At: slot.At.Add(time.Hour)}}); err != nil || !slices.Equal(queued, []events.Slot{slot}) {
		t.Fatal(queued, err)
	}
	take := func() *postgres.JobAttempt {
		t.Helper()
		a, err := store.TakeSlot(t.Context(), slot.Job, "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	first := take()
	if first == nil || take() != nil {
		t.Fatalf("the slot was taken %+v, and then once more", first)
	}
	f.advance(t, time.Minute)
	second := take()
	if second == nil || second.Number != 2 {
		t.Fatalf("after the lease: %+v", second)
	}
	for name, late := range map[string]func() (bool, error){
		"keep":  func() (bool, error) { return store.KeepSlot(t.Context(), *first, time.Minute) },
		"end":   func() (bool, error) { return store.EndSlot(t.Context(), *first, []byte("{}")) },
		"retry": func() (bool, error) { return store.RetrySlot(t.Context(), *first, "late", 0) },
	} {
		if ours, err := late(); err != nil || ours {
			t.Errorf("%s: %t, %v", name, ours, err)
		}
	}
	f.set(t, "2026-03-04T10:00:00Z") // the clock is set back before it ends
	if ours, err := store.EndSlot(t.Context(), *second, []byte(`{"rows":1}`)); err != nil || !ours {
		t.Errorf("the one that has it: %t, %v", ours, err)
	}
	if asked, err := store.AskForSlot(t.Context(), slot, "a test"); err != nil || asked {
		t.Errorf("a slot that is done was asked for: %t, %v", asked, err)
	}
	got, err := store.JobSlot(t.Context(), slot)
	if err != nil || got == nil || got.State != postgres.SlotDone || got.AskedBy != "a test" || string(got.Result) != `{"rows": 1}` {
		t.Errorf("the slot is %+v, %v", got, err)
	}
}
