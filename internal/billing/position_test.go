package billing

import (
	"testing"
	"time"
)

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
