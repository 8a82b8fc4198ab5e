package clickhouse

import (
	"testing"
	"time"
)

// A clock that is set back opens deadlines again that had passed: an insert that was given up, and sent again, may land
// beside its successor.
func TestClock_ACopyThatLandsAfterAStepBackIsDeleted(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	s.clock.Store(&reading{server: time.Now().Add(time.Hour), ours: time.Now()}) // as it was before it was set back

	if _, err := s.Announce(t.Context(), Writer{Topic: "usage", Partitions: 1, Group: "g", ID: "one", Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if n := s.steps.Load(); n != 1 {
		t.Fatalf("the clock was set %d times, want 1", n)
	}
	b := blockOf(plains(6)...)
	late := s.insert(t, b)
	in := s.intent(b)
	in.InsertBy = late.InsertBy.Add(time.Second)
	if err := s.Insert(t.Context(), in, b, 0, b.Len()); err != nil {
		t.Fatal(err)
	}
	if c := s.counts(t); c.rows != 12 {
		t.Fatalf("%d rows before, want each twice", c.rows)
	}
	if err := s.sweepReopened(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.number(t, "(SELECT count() FROM usage_tracking WHERE toUnixTimestamp64Milli(_insert_by) = ?)", in.InsertBy.UnixMilli()); n != 6 {
		t.Errorf("%d rows of the later insert are left, want 6", n)
	}
	if c := s.counts(t); c.rows != 6 {
		t.Errorf("%d rows, want 6", c.rows)
	}
	if s.reopened.Load() == nil {
		t.Error("the deadlines are taken for passed an hour too early")
	}
}

func TestClock_OfThisHostDoesNotMatter(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	// What a host whose wall clock is an hour ahead reads: only the time between two readings counts.
	s.clock.Store(&reading{server: time.Now(), ours: time.Now()})
	if off := time.Until(s.Now()).Abs(); off > time.Second {
		t.Errorf("the server's clock is taken to be %s off", off)
	}
	s.observe(t.Context(), time.Now(), time.Now().Add(200*time.Millisecond))
	if s.reopened.Load() != nil {
		t.Error("a drift of 200 ms is taken for a step")
	}
}
