package billing

import (
	"maps"
	"testing"
	"time"

	"tenantflow/internal/kafka"
)

// What was committed and what the log still has say how far a partition is stored, or that it is not known.
func TestPositionOf_SaysWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 9, 0, 0, 0, 0, time.UTC)
	old := now.Add(-time.Hour)
	for name, c := range map[string]struct {
		gap     kafka.Gap
		offset  int64
		until   time.Time
		unknown bool
	}{
		"all is stored":                          {kafka.Gap{Committed: 9, End: 9}, 9, now, false},
		"some waits":                             {kafka.Gap{Committed: 4, End: 9, Records: 5, Oldest: old}, 4, old, false},
		"some waits, of an unknown time":         {kafka.Gap{Committed: 4, End: 9, Records: 5}, 4, now, true},
		"a new group, nothing in the log":        {kafka.Gap{Committed: -1, End: 9}, 9, now, false},
		"a new group":                            {kafka.Gap{Committed: -1, End: 9, Records: 9, Oldest: old}, 0, now, true},
		"a new group, a log that began earlier":  {kafka.Gap{Committed: -1, End: 9, Records: 2, Oldest: old}, 7, now, true},
		"what was next has left the log":         {kafka.Gap{Committed: 4, End: 9, Records: 2, Oldest: old}, 7, now, true},
		"what was next has left, all is gone":    {kafka.Gap{Committed: 4, End: 9}, 9, now, true},
		"the log ends before what was committed": {kafka.Gap{Committed: 11, End: 9}, 11, now, true},
	} {
		got := positionOf(&c.gap, now)
		if got.Offset != c.offset || got.unknown != c.unknown || !c.unknown && !got.until.Equal(c.until) {
			t.Errorf("%s: got %+v, want offset %d until %s, unknown %v", name, got, c.offset, c.until, c.unknown)
		}
	}
}

// Partitions that the log has no more keep their place in a position: what stands in them is not new in every export.
func TestPosition_KeepsPartitionsThatAreGone(t *testing.T) {
	t.Parallel()
	p := TopicPosition{Partitions: []PartitionPosition{{Partition: 0, Offset: 5, end: 6}, {Partition: 1, Offset: 5, end: 6}}}
	beyond := p.beyond(map[int]int64{0: 6, 1: 7, 3: 20})
	if want := map[int]int64{1: 7, 3: 20}; !maps.Equal(beyond, want) {
		t.Errorf("beyond the log: got %v, want %v", beyond, want)
	}
	raised := p.atLeast(beyond)
	if want := map[int]int64{0: 5, 1: 7, 3: 20}; !maps.Equal(raised.offsets(), want) {
		t.Errorf("raised: got %v, want %v", raised.offsets(), want)
	}
	if why := raised.behind(time.Now().Add(-time.Hour)); why == "" {
		t.Error("partitions without a time are not behind") // 0 and 1 have none here
	}
}

// The topic was made again: the new log begins at 0, and rows of the old one lie behind its end. No row is left out, in the first export of a company and in a later one.
func TestClose_OfATopicThatWasMadeAgain(t *testing.T) {
	t.Parallel()
	for name, exported := range map[string]bool{"of a company with an export": true, "of one without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			first, second := ago(4), ago(3)
			f.put(t, row{user: "u", at: first.Start(), points: 1, offset: 700}, row{user: "u", at: second.Start(), points: 2, offset: 900}, row{user: "u", at: second.Start(), points: 4, partition: 1, offset: 20})
			if exported {
				f.log.reach(800, 30)
				if d := f.closed(t, "acme", first).document(t); d.Totals.Usage.Calls != 1 {
					t.Fatalf("%+v", d.Totals)
				}
			}
			f.log.reach(5, 5)
			f.log.end = 6
			d := f.closed(t, "acme", second).document(t)
			if d.Totals.Usage.Calls != 2 || d.Totals.Usage.DataPoints != 6 || len(d.Corrections) != 0 || !d.Reconciliation.Behind.zero() {
				t.Errorf("%+v, corrections %s, %+v", d.Totals.Usage, d.lines(), d.Reconciliation)
			}
			// Rows of the new log, below the old positions, are corrections of months that are closed.
			f.put(t, row{user: "u", at: second.Start(), points: 8, offset: 6})
			f.log.reach(7, 5)
			f.log.end = 7
			if d = f.closed(t, "acme", ago(2)).document(t); d.Totals.Corrections.Calls != 1 || d.Totals.Corrections.DataPoints != 8 {
				t.Errorf("of the new log: %s", d.lines())
			}
		})
	}
}

// Rows that were appended after a look are no sign of another log: a later look has them.
func TestClose_RowsThatCameAfterTheLook(t *testing.T) {
	t.Parallel()
	f := setup(t)
	month := ago(3)
	f.put(t, row{user: "u", at: month.Start(), points: 1, offset: 3}, row{user: "u", at: month.Start(), points: 2, offset: 9})
	f.log.reach(5, 0)
	f.log.end = 10
	d := f.closed(t, "acme", month).document(t)
	if d.Totals.Usage.Calls != 1 || d.Reconciliation.Behind.Calls != 1 || !d.Reconciliation.Equal {
		t.Errorf("%+v, %+v", d.Totals.Usage, d.Reconciliation)
	}
}

// A position that lies before the last export's, because the group's offsets were set back, leaves nothing out that was exported.
func TestClose_PositionThatWentBack(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.put(t, row{user: "u", at: ago(4).Start(), points: 1, offset: 70}, row{user: "u", at: ago(3).Start(), points: 2, offset: 80})
	f.log.reach(100, 100)
	f.closed(t, "acme", ago(4))
	f.log.reach(0, 0)
	f.log.until[0] = time.Now()
	d := f.closed(t, "acme", ago(3)).document(t)
	if d.Totals.Usage.Calls != 1 || len(d.Corrections) != 0 || d.AsOf.Usage.Partitions[0].Offset != 100 {
		t.Errorf("%+v, %s, %+v", d.Totals.Usage, d.lines(), d.AsOf)
	}
}
