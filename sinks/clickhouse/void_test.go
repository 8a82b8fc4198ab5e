package clickhouse

import (
	"testing"

	"tenantflow/events"
)

// voidOf takes a row back, from an offset.
func voidOf(r row, offset int64) *events.Usage {
	u := r.usage()
	u.Voids = &events.Voids{Source: u.Source, ID: u.ID}
	u.Source, u.ID = []byte(events.VoidSource()), []byte("void of "+r.id)
	return u
}

// withVoids is a block of rows and, behind them, of what takes some back.
func withVoids(rows []row, voided ...int) *Block {
	b := blockOf(rows...)
	for i, n := range voided {
		u := voidOf(rows[n], int64(len(rows)+i))
		b.Append(u, u.IdentityHash(), int64(len(rows)+i))
	}
	return b
}

func TestVoid_IsStoredWithWhatItTakesBack(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(300) // more ids than a narrow dictionary has keys
	b := withVoids(rows, 3, 5, 299)
	s.insert(t, b)
	if c := s.counts(t); c != (counts{303, 297, 297, 297}) {
		t.Errorf("stored %+v", c)
	}
	if n := s.number(t, "(SELECT count() FROM usage_tracking AS v INNER JOIN usage_tracking AS u ON v.voids_id = u.event_id AND v.voids_source = u.event_source "+
		"WHERE v.sign = -1 AND u.sign = 1 AND v.event_id = concat('void of ', u.event_id) AND v.event_source = '/tenantflow/company' AND v.timestamp = u.timestamp "+
		"AND v.data_points_consumed = u.data_points_consumed AND v.revenue_attributed = u.revenue_attributed)"); n != 3 {
		t.Errorf("%d voids beside their usage, want 3", n)
	}
	if n := s.number(t, "(SELECT count() FROM usage_tracking WHERE sign = 1 AND voids_id = '' AND voids_source = '')"); n != 300 {
		t.Errorf("%d rows take nothing back, want 300", n)
	}
	if n := s.number(t, "(SELECT sum(total_data_points) FROM usage_analytics_hourly)"); n != 299*300/2-3-5-299 {
		t.Errorf("%d data points", n)
	}
	// A block that held voids holds none when it is used again.
	b.Reset()
	if b.Append(rows[0].usage(), 1, 0); b.sign(0) != 1 || len(b.LiveVoids()) != 0 || b.Bytes() != blockOf(rows[0]).Bytes() {
		t.Errorf("sign %d, voids %v, %d bytes", b.sign(0), b.LiveVoids(), b.Bytes())
	}
}

func TestVoid_IsAnotherEventThanUsageOfItsIdentity(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(2)
	b := withVoids(rows, 0)
	s.insert(t, b)
	matches, err := s.Find(t.Context(), b, b.all())
	if err != nil || len(matches) != 3 {
		t.Fatalf("found %+v, %v", matches, err)
	}
	for _, m := range matches {
		if !m.Same || m.Offset != b.Offset(m.Row) {
			t.Errorf("found %+v", m)
		}
	}
	usage := voidOf(rows[0], 9)
	usage.Voids = nil
	other := NewBlock()
	other.Append(usage, usage.IdentityHash(), 9)
	if matches, err := s.Find(t.Context(), other, []int{0}); err != nil || len(matches) != 1 || matches[0].Same {
		t.Errorf("usage under the identity of a void: %+v, %v", matches, err)
	}
	both := NewBlock()
	for _, u := range []*events.Usage{voidOf(rows[0], 2), usage} {
		both.Append(u, u.IdentityHash(), int64(both.Len()))
	}
	if !both.SameEvent(0, 1) || both.SameContent(0, 1) {
		t.Error("they are one in a batch")
	}
}

func TestFindVoided_WantsUsageWithTheSameData(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(4)
	s.insert(t, withVoids(rows[:3], 2))
	b := NewBlock()
	add := func(r row, change func(*events.Usage)) {
		u := voidOf(r, int64(100+b.Len()))
		if change != nil {
			change(u)
		}
		b.Append(u, u.IdentityHash(), int64(100+b.Len()))
	}
	add(rows[0], nil)
	add(rows[3], nil)                                     // not stored
	add(rows[0], func(u *events.Usage) { u.Revenue++ })   // other data
	add(rows[0], func(u *events.Usage) { u.Timestamp++ }) // another time
	add(rows[2], nil)                                     // voided already: the usage is there
	add(rows[2], func(u *events.Usage) {
		*u.Voids = events.Voids{ // a void
			Source: []byte(events.VoidSource()), ID: []byte("void of " + rows[2].id)}
	})
	matches, err := s.FindVoided(t.Context(), b, b.all())
	if err != nil {
		t.Fatal(err)
	}
	got := map[int]bool{}
	for _, m := range matches {
		got[m.Row] = m.Same
	}
	want := map[int]bool{0: true, 2: false, 4: true, 5: false}
	if len(got) != len(want) {
		t.Errorf("found %v, want %v", got, want)
	}
	for row, same := range want {
		if g, found := got[row]; !found || g != same {
			t.Errorf("row %d: found %t, same %t; want %t", row, found, g, same)
		}
	}
}

func TestSettle_CompletesTheTotalsOfVoids(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(5)
	for i := range rows {
		rows[i] = rows[i].monthsAgo(i % 2)
	}
	s.exec(t, "DETACH TABLE usage_daily_feed")
	in := s.insert(t, withVoids(rows, 1, 2))
	s.exec(t, "ATTACH TABLE usage_daily_feed")
	if c := s.counts(t); c != (counts{7, 3, 0, 3}) {
		t.Fatalf("before: stored %+v", c)
	}
	for range 2 {
		if settled, _ := s.settle(t, in); settled != (Settled{Rows: 7}) {
			t.Errorf("%+v", settled)
		}
		if c := s.counts(t); c != (counts{7, 3, 3, 3}) {
			t.Errorf("stored %+v", c)
		}
	}
	if n := s.number(t, "(SELECT sum(sign * toInt64(data_points_consumed)) FROM usage_tracking)"); n != s.number(t, "(SELECT sum(total_data_consumption) FROM usage_daily)") {
		t.Errorf("%d data points by the rows", n)
	}
}

// Where all was taken back, an average would divide by zero, and a day would seem to have been used.
func TestVoid_WhereAllIsTakenBackThereIsNoUsage(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := []row{plain(1), plain(4).monthsAgo(1), plain(7).monthsAgo(1)} // one user
	s.insert(t, withVoids(rows, 0))
	for view, want := range map[string]int64{"usage_analytics_hourly": 1, "usage_daily": 1, "billing_monthly": 1} {
		if n := s.number(t, "(SELECT count() FROM "+view+")"); n != want {
			t.Errorf("%s has %d rows, want %d", view, n, want)
		}
	}
	if n := s.number(t, "(SELECT sum(avg_processing_time * 1000) FROM usage_analytics_hourly)"); n != 1500 {
		t.Errorf("the average of what is left is %d thousandths", n)
	}
	// The latest of what is left is not the latest that was used: a void takes nothing from that.
	rows = []row{plain(10), plain(13)}
	rows[0].at, rows[1].at = rows[0].at-20_000, rows[0].at-10_000
	for i := range rows {
		rows[i].user, rows[i].offset = "latest", int64(100+i)
	}
	b := blockOf(rows...)
	u := voidOf(rows[1], 102)
	b.Append(u, u.IdentityHash(), 102)
	s.insert(t, b)
	if at := s.number(t, "(SELECT toUnixTimestamp64Milli(last_activity) FROM billing_monthly WHERE user_id = 'latest')"); at != rows[1].at {
		t.Errorf("last active at %d, want %d", at, rows[1].at)
	}
}

func TestBlock_OnlyPutsRowsBack(t *testing.T) {
	t.Parallel()
	b := withVoids(plains(4), 1, 3)
	voids := b.LiveVoids()
	if len(voids) != 2 || voids[0] != 4 || voids[1] != 5 {
		t.Fatalf("voids %v", voids)
	}
	b.Drop(4)
	b.Drop(5)
	b.Drop(0)
	if got := b.LiveVoids(); len(got) != 0 {
		t.Errorf("voids %v", got)
	}
	b.Only(voids[1:])
	if b.Live() != 1 || b.LiveIn(0, b.Len()) != 1 || b.Dropped(5) {
		t.Errorf("%d rows are live", b.Live())
	}
}
