package clickhouse

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestABlockIsSplitAtTheUTCBordersOfMonths(t *testing.T) {
	t.Parallel()
	at := func(text string) int64 {
		v, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixMilli()
	}
	times := []struct {
		at    string
		month int
	}{
		{"2026-11-01T00:00:00Z", 202611},
		{"2026-10-31T23:59:59.999Z", 202610},
		{"2026-11-30T23:59:59.999Z", 202611},
		{"2026-12-01T00:00:00Z", 202612},
		{"2026-12-01T00:30:00+01:00", 202611},
		{"2026-11-30T23:30:00-01:00", 202612},
		{"2026-12-31T23:59:59.999Z", 202612},
		{"2027-01-01T00:00:00Z", 202701},
		{"2028-02-29T23:59:59.999Z", 202802},
		{"2028-03-01T00:00:00Z", 202803},
		{"2027-02-28T23:59:59.999Z", 202702},
		{"2026-11-15T12:00:00Z", 202611},
	}
	b := NewBlock()
	want := map[int][]int32{}
	for i, c := range times {
		r := plain(i)
		r.at = at(c.at)
		u := r.usage()
		b.Append(u, u.IdentityHash(), r.offset)
		want[c.month] = append(want[c.month], int32(i))
	}
	parts := b.parts(0, b.Len())
	for _, p := range parts {
		if !slices.Equal(p.rows, want[p.Month]) {
			t.Errorf("month %d has the rows %v, want %v", p.Month, p.rows, want[p.Month])
		}
	}
	if len(parts) != len(want) {
		t.Errorf("%d parts, want %d", len(parts), len(want))
	}
}

// The parts are what a crash leaves the next owner to settle by, so the rows of one month must make the same part
// whichever process forms it, and other rows another one.
func TestAPartIsMadeOfItsRowsAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "rows")
		rows := make([]row, n)
		drop := make([]bool, n)
		b := NewBlock()
		for i := range rows {
			rows[i] = plain(i).monthsAgo(rapid.IntRange(0, 3).Draw(t, "months ago"))
			drop[i] = rapid.IntRange(0, 4).Draw(t, "drop") == 0
			u := rows[i].usage()
			b.Append(u, u.IdentityHash(), rows[i].offset)
		}
		live := 0
		for i, d := range drop {
			if d {
				b.Drop(i)
				b.Drop(i) // twice is once
			} else {
				live++
			}
		}
		if b.Live() != live || b.Len() != n {
			t.Fatalf("%d rows, %d live; want %d, %d", b.Len(), b.Live(), n, live)
		}
		first := rapid.IntRange(0, n).Draw(t, "first")
		last := rapid.IntRange(first, n).Draw(t, "last")
		seen := 0
		for _, p := range b.parts(first, last) {
			alone := NewBlock()
			for _, r := range p.rows {
				if drop[r] || int(r) < first || int(r) >= last {
					t.Fatalf("row %d is in a part of %d..%d", r, first, last)
				}
				u := rows[r].usage()
				alone.Append(u, u.IdentityHash(), rows[r].offset)
				seen++
			}
			again := alone.parts(0, alone.Len())
			if len(again) != 1 || again[0].Part != p.Part {
				t.Fatalf("part %+v formed alone is %+v", p.Part, again)
			}
			if alone.Len() > 1 {
				alone.Drop(rapid.IntRange(0, alone.Len()-1).Draw(t, "missing"))
				if again := alone.parts(0, alone.Len()); again[0].Hash == p.Hash {
					t.Fatal("a part with a row less has the same hash")
				}
			}
		}
		want := 0
		for i := first; i < last; i++ {
			if !drop[i] {
				want++
			}
		}
		if seen != want {
			t.Fatalf("%d rows in parts, want %d", seen, want)
		}
	})
}

func TestABlockCopiesWhatItIsGiven(t *testing.T) {
	t.Parallel()
	r := plain(1)
	u := r.usage()
	b := NewBlock()
	b.Append(u, u.IdentityHash(), 1)
	for _, text := range [][]byte{u.ID, u.Source, u.UserID, u.CompanyID, u.Tier, u.Service, u.Endpoint, u.BillingPeriod} {
		for i := range text {
			text[i] = 'X'
		}
	}
	other := r.usage()
	b.Append(other, other.IdentityHash(), 2)
	if !b.SameEvent(0, 1) || !b.SameContent(0, 1) {
		t.Error("the block changed with the memory it was filled from")
	}
	b.Reset()
	if b.Len() != 0 || b.Live() != 0 || b.Bytes() != 0 {
		t.Errorf("after a reset: %d rows, %d live, %d bytes", b.Len(), b.Live(), b.Bytes())
	}
}

func TestSameContentComparesEverythingButThePlace(t *testing.T) {
	t.Parallel()
	base := plain(1)
	elsewhere := base
	elsewhere.offset = 99
	if b := blockOf(base, elsewhere); !b.SameContent(0, 1) || !b.SameEvent(0, 1) {
		t.Error("the same event at another offset differs")
	}
	for name, other := range variants(base) {
		b := blockOf(base, other)
		identity := name == "id" || name == "source"
		if b.SameEvent(0, 1) == identity {
			t.Errorf("another %s: same event %v", name, b.SameEvent(0, 1))
		}
		if !identity && b.SameContent(0, 1) {
			t.Errorf("another %s counts as the same content", name)
		}
	}
}

// variants are rows that differ from base in one thing.
func variants(base row) map[string]row {
	all := map[string]row{}
	for name, change := range map[string]func(*row){
		"id":         func(r *row) { r.id += "x" },
		"source":     func(r *row) { r.source += "x" },
		"user":       func(r *row) { r.user += "x" },
		"company":    func(r *row) { r.company += "x" },
		"timestamp":  func(r *row) { r.at++ },
		"tier":       func(r *row) { r.tier += "x" },
		"service":    func(r *row) { r.service += "x" },
		"endpoint":   func(r *row) { r.endpoint = "" },
		"points":     func(r *row) { r.points++ },
		"processing": func(r *row) { r.processing++ },
		"period":     func(r *row) { r.period = "2001-01" },
		"revenue":    func(r *row) { r.revenue++ },
	} {
		r := base
		change(&r)
		all[name] = r
	}
	return all
}
