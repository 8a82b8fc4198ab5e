package jobs_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/jobs"
	"tenantflow/sinks/postgres"
)

// A clock that was half a year ahead for a moment costs no slot: planning goes back, what was planned ahead is removed, and what has had its run has no other.
func TestSchedule_ClockFarAheadForAMoment(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-11-30T09:30:00Z")
	w := newWorker()
	p := f.start(t, "", w.job(events.JobStorage, jobs.Hour, jobs.OnlyLatest()), w.job(events.JobBillingExport, jobs.Month, jobs.Each(400*days, 14)))
	p.looked(t)
	f.set(t, "2026-11-30T10:00:01Z")
	f.awaitSlots(t, "storage 11-30 10 done")
	p.stop() // no process does the work of June
	store := f.open(t)
	plan := func(job string, every jobs.Every) {
		t.Helper()
		_, _, err := store.PlanJob(t.Context(), job, func(s postgres.JobState) postgres.JobPlan {
			return postgres.JobPlan{To: every.Floor(s.Now), Due: []time.Time{every.Floor(s.Now)}}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	f.set(t, "2027-06-30T10:00:00Z")
	plan(events.JobStorage, jobs.Hour)
	plan(events.JobBillingExport, jobs.Month)
	f.set(t, "2026-11-30T10:00:03Z")
	second := f.start(t, "", w.job(events.JobStorage, jobs.Hour, jobs.OnlyLatest()), w.job(events.JobBillingExport, jobs.Month, jobs.Each(400*days, 14)))
	enginetest.Await(t, "planning is back", func() bool {
		return slices.Equal(f.query(t, "SELECT to_char(planned_to AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24') FROM jobs ORDER BY job"), []string{"2026-11-01 00", "2026-11-30 10"})
	})
	second.looked(t)
	f.set(t, "2026-11-30T11:00:00Z")
	enginetest.Await(t, "the next hour is done", func() bool { return w.ran(events.JobStorage, "2026-11-30T11:00:00Z") == 1 })
	f.set(t, "2026-12-01T00:00:00Z")
	enginetest.Await(t, "the next month is done", func() bool { return w.ran(events.JobBillingExport, "2026-12-01T00:00:00Z") == 1 })
	if n := w.ran(events.JobStorage, "2026-11-30T10:00:00Z"); n != 1 {
		t.Errorf("the hour before the jump has %d runs", n)
	}
	if n := w.ran(events.JobStorage, "2027-06-30T10:00:00Z"); n != 0 {
		t.Errorf("an hour that has not come has %d runs", n)
	}
}

// What a clock that was far ahead has ended as too late is open again when it is right.
func TestSchedule_ClockFarAheadEndsNoSlot(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-11-30T10:00:00Z")
	w := newWorker()
	p := f.start(t, "", w.job(events.JobBillingExport, jobs.Month, jobs.Each(400*days, 14)))
	p.looked(t)
	p.stop()
	f.set(t, "2026-12-01T10:00:00Z")
	store := f.open(t)
	plan := func(to time.Time, due []time.Time, before time.Time) {
		t.Helper()
		if _, _, err := store.PlanJob(t.Context(), events.JobBillingExport, func(postgres.JobState) postgres.JobPlan {
			return postgres.JobPlan{To: to, Due: due, Before: before}
		}); err != nil {
			t.Fatal(err)
		}
	}
	plan(at("2026-12-01T00:00:00Z"), []time.Time{at("2026-12-01T00:00:00Z")}, time.Time{})
	f.set(t, "2029-06-01T10:00:00Z")
	plan(at("2029-06-01T00:00:00Z"), nil, at("2028-04-27T00:00:00Z"))
	if got, want := f.slots(t), []string{"billing_export 12-01 00 skipped"}; !slices.Equal(got, want) {
		t.Fatalf("the clock that is ahead: got %q, want %q", got, want)
	}
	f.set(t, "2026-12-01T10:00:02Z")
	f.start(t, "", w.job(events.JobBillingExport, jobs.Month, jobs.Each(400*days, 14)))
	f.awaitSlots(t, "billing_export 12-01 00 done")
}

// A slot that has not come is not taken, whatever planned it.
func TestSchedule_SlotThatHasNotComeIsNotTaken(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:00:00Z")
	store := f.open(t)
	slot := f.queued(t, store, "2026-03-04T12:00:00Z")
	if a, err := store.TakeSlot(t.Context(), slot.Job, "a", time.Minute); err != nil || a != nil {
		t.Errorf("taken %+v, %v", a, err)
	}
	if all, err := store.WatchJobs(t.Context(), []string{slot.Job}, time.Minute); err != nil || all[0].Ready {
		t.Errorf("watched %+v, %v", all, err)
	}
	f.set(t, "2026-03-04T12:00:00Z")
	if a, err := store.TakeSlot(t.Context(), slot.Job, "a", time.Minute); err != nil || a == nil {
		t.Errorf("when it has come: taken %+v, %v", a, err)
	}
}

// A slot whose processes die is tried again later and later, and says so; one that a person asked for ends.
func TestSchedule_SlotThatEndsItsProcessIsTriedLaterAndLater(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T12:00:00Z")
	store := f.open(t)
	slot := f.queued(t, store, "2026-03-04T12:00:00Z")
	take := func() bool {
		t.Helper()
		a, err := store.TakeSlot(t.Context(), slot.Job, "host/1", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return a != nil
	}
	if !take() {
		t.Fatal("it is not taken")
	}
	f.advance(t, time.Minute)
	if !take() {
		t.Fatal("after the first death it is not taken at once")
	}
	for deaths, wait := range []time.Duration{2: 2 * time.Minute, 3: 4 * time.Minute, 4: 8 * time.Minute, 5: 16 * time.Minute, 6: 32 * time.Minute, 7: time.Hour} {
		if wait == 0 {
			continue
		}
		f.advance(t, time.Minute)
		if take() {
			t.Fatalf("after %d deaths it is taken at once", deaths)
		}
		f.advance(t, wait-time.Second)
		if take() {
			t.Fatalf("after %d deaths it is taken before %s", deaths, wait)
		}
		if got := f.query(t, "SELECT state || ' ' || error FROM job_slots"); !slices.Equal(got, []string{"queued the process host/1 gave no sign any more"}) {
			t.Errorf("after %d deaths: %q", deaths, got)
		}
		f.advance(t, time.Second)
		if !take() {
			t.Fatalf("after %d deaths it is not taken after %s", deaths, wait)
		}
	}
	f.advance(t, time.Minute)
	if take() {
		t.Error("after eight deaths it is taken again")
	}
	f.advance(t, 2*time.Hour)
	if got := f.query(t, "SELECT state FROM job_slots"); take() || !slices.Equal(got, []string{"failed"}) {
		t.Errorf("a slot that was asked for and failed eight times is %q", got)
	}
	if asked, err := store.AskForSlot(t.Context(), slot, "a test"); err != nil || !asked {
		t.Errorf("it can't be asked for again: %v", err)
	}
}

// A process whose signs do not get through stops its work well before another one may begin it.
func TestSchedule_WorkStopsBeforeTheLeaseEnds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:59:00Z")
	f.lease = 3 * time.Second
	w := newWorker()
	begun, stopped := make(chan struct{}, 10), make(chan time.Duration, 10)
	w.hold = func(ctx context.Context, slot events.Slot) error {
		if w.ran(slot.Job, slot.At.Format(time.RFC3339)) > 1 {
			return nil
		}
		began := time.Now()
		begun <- struct{}{}
		<-ctx.Done()
		stopped <- time.Since(began)
		return ctx.Err()
	}
	job := w.job(events.JobBillingExport, jobs.Hour, jobs.Each(days, 24))
	p := f.start(t, "", job)
	p.looked(t)
	p.cutOff.Store(true)
	f.set(t, "2026-03-04T12:00:00Z")
	<-begun
	if took := <-stopped; took >= f.lease {
		t.Errorf("it stopped after %s, and the lease is %s", took, f.lease)
	}
	enginetest.Await(t, "the attempt is lost", func() bool { return p.outcomes(t, events.JobBillingExport)["lost"] == 1 })
	if got := f.query(t, "SELECT state || attempts FROM job_slots"); !slices.Equal(got, []string{"running1"}) {
		t.Errorf("while the lease lasts the slot is %q", got)
	}
	f.advance(t, f.lease)
	f.awaitSlots(t, "billing_export 03-04 12 done")
	if runs, most := w.total(); runs != 2 || most != 1 {
		t.Errorf("%d runs, %d at a time, want 2, one at a time", runs, most)
	}
}

// Jobs that have gone from the table, as with an older dump, are made known again.
func TestSchedule_JobsThatAreGoneComeBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:59:00Z")
	w := newWorker()
	p := f.start(t, "", w.job(events.JobBackup, jobs.Hour, jobs.OnlyLatest()))
	p.looked(t)
	f.exec(t, "DELETE FROM jobs")
	enginetest.Await(t, "the job is known again", func() bool { return f.query(t, "SELECT count(*)::text FROM jobs")[0] == "1" })
	f.set(t, "2026-03-04T12:00:00Z")
	f.awaitSlots(t, "backup 03-04 12 done")
}

// A missing right does not mend itself: the part reports it, instead of working without a plan.
func TestSchedule_MissingTableEndsIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "2026-03-04T11:59:00Z")
	f.exec(t, "ALTER TABLE jobs RENAME TO jobs_away")
	run := func(context.Context, time.Time) (any, error) { return nil, nil }
	schedule, err := jobs.New(jobs.Config{Jobs: []jobs.Job{{Name: events.JobBackup, Every: jobs.Hour, Catchup: jobs.OnlyLatest(), Run: run}}, Store: f.open(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := schedule.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "look at the schedule") {
		t.Errorf("got %v", err)
	}
}

func (f *fixture) open(t *testing.T) *postgres.Store {
	t.Helper()
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: f.dsn, Timeout: enginetest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// queued has a slot of a job queued that was asked for.
func (f *fixture) queued(t *testing.T, store *postgres.Store, text string) events.Slot {
	t.Helper()
	slot := events.Slot{Job: events.JobBackup, At: at(text)}
	if err := store.RegisterJobs(t.Context(), map[string]string{slot.Job: "hour"}); err != nil {
		t.Fatal(err)
	}
	if asked, err := store.AskForSlot(t.Context(), slot, "a test"); err != nil || !asked {
		t.Fatal(asked, err)
	}
	if queued, err := store.QueueSlots(t.Context(), []events.Slot{slot}); err != nil || len(queued) != 1 {
		t.Fatal(queued, err)
	}
	return slot
}
