package yearmodel

import (
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"
)

// end is when the worlds of tests end.
var end = time.Date(2026, 11, 30, 15, 4, 5, 0, time.UTC)

func small(t *testing.T, seed uint64) *World {
	t.Helper()
	w, err := New(Config{Seed: seed, Companies: 16, Users: 80, Rows: 20_000, Now: end})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func rowsOf(t *testing.T, w *World) []Row {
	t.Helper()
	var all []Row
	if err := w.Usage(func(r *Row) error { all = append(all, *r); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWorld_FollowsFromTheSeed(t *testing.T) {
	t.Parallel()
	one, again, other := small(t, 1), small(t, 1), small(t, 2)
	if !reflect.DeepEqual(one, again) || !reflect.DeepEqual(rowsOf(t, one), rowsOf(t, again)) {
		t.Error("the same seed gives another world")
	}
	if reflect.DeepEqual(rowsOf(t, one), rowsOf(t, other)) {
		t.Error("another seed gives the same usage")
	}
}

func TestWorld_HasWhatItsConfigSays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		w := small(t, seed)
		rows := rowsOf(t, w)
		taken, given := map[int64]bool{}, map[int64]Row{}
		first, voids := (monthOf(end) - 12).start().UnixMilli(), 0
		for _, r := range rows {
			if r.At < first || r.At >= end.UnixMilli() {
				t.Fatalf("seed %d: a row of %s", seed, time.UnixMilli(r.At).UTC())
			}
			if r.Sign > 0 {
				given[r.Number] = r
				continue
			}
			voids++
			same := given[r.Number]
			same.Sign = -1
			if taken[r.Number] || same != r {
				t.Fatalf("seed %d: %+v takes back %+v", seed, r, same)
			}
			taken[r.Number] = true
		}
		users := 0
		for _, c := range w.Companies {
			users += len(c.users)
		}
		if len(rows) != 20_000 || users != 80 || len(w.Companies) != 16 || voids == 0 {
			t.Errorf("seed %d: %d rows, %d users, %d companies, %d voids", seed, len(rows), users, len(w.Companies), voids)
		}
	}
	if _, err := New(Config{Seed: 1, Companies: 15, Users: 80, Rows: 20_000, Now: end}); err == nil {
		t.Error("15 companies are enough")
	}
}

// Lives that never take a turn would prove nothing about it.
func TestWorld_EveryTurnComesUp(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for seed := range uint64(40) {
		for _, c := range small(t, seed).Companies {
			lifeOf(c, seen)
		}
	}
	for _, turn := range strings.Fields(`upgrade_requested downgrade_requested cancel_requested renewed change_withdrawn expired payment_failed payment_received user_added user_removed
		limits_overridden closed registered free pro enterprise immediate twelve_months back_at_once came_back suspended grace`) {
		if seen[turn] < 3 {
			t.Errorf("%s: %d times", turn, seen[turn])
		}
	}
}

// lifeOf counts the turns of a life.
func lifeOf(c *Company, seen map[string]int) {
	for _, s := range c.Steps {
		if s.Event == nil {
			continue
		}
		name := strings.TrimSuffix(s.Event.Type, ".v1")
		seen[name[strings.Index(name, ".")+1:]]++
		if s.Event.Data["effective"] == "immediate" {
			seen["immediate"]++
		}
	}
	seen[c.tier]++
	for _, ch := range c.charges {
		if ch.minor == 12*plans[ch.tier].price && ch.minor > 0 {
			seen["twelve_months"]++
		}
	}
	for i := 1; i < len(c.levels); i++ {
		if c.levels[i].at.Equal(c.levels[i-1].at) {
			seen["back_at_once"]++
		} else if c.levels[i-1].minor == 0 && c.levels[i].minor > 0 {
			seen["came_back"]++
		}
	}
	here := 0
	for _, u := range c.users {
		if u.left.IsZero() {
			here++
		}
	}
	if len(c.present()) < here {
		seen["suspended"]++
	}
	if n := len(c.charges); n > 0 && c.pays() > 0 && c.charges[n-1].month < monthOf(end)-1 {
		seen["grace"]++ // a long period, or one that waits
	}
}

func TestMoney_IsRoundedHalfToEven(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"1/200": "0.00", "3/200": "0.02", "-1/200": "0.00", "-3/200": "-0.02", "7/3": "2.33", "-7/3": "-2.33", "5": "5.00", "-1/1000": "0.00", "199/200": "1.00", "1/8": "0.12"} {
		r, _ := new(big.Rat).SetString(text)
		if got := rounded(r, 2); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

func TestLater_KeepsToTheAnchor(t *testing.T) {
	t.Parallel()
	at := func(text string) time.Time {
		moment, err := time.Parse(time.DateTime, text)
		if err != nil {
			t.Fatal(err)
		}
		return moment
	}
	for _, c := range []struct {
		start          string
		months, anchor int
		want           string
	}{
		{"2026-01-31 10:00:00", 1, 31, "2026-02-28 10:00:00"}, {"2026-02-28 10:00:00", 1, 31, "2026-03-31 10:00:00"},
		{"2024-01-30 00:00:00", 1, 30, "2024-02-29 00:00:00"}, {"2026-11-15 23:59:59", 12, 15, "2027-11-15 23:59:59"}, {"2026-12-31 00:00:00", 2, 31, "2027-02-28 00:00:00"},
	} {
		if got := later(at(c.start), c.months, c.anchor); !got.Equal(at(c.want)) {
			t.Errorf("%d months after %s by day %d: %s, want %s", c.months, c.start, c.anchor, got, c.want)
		}
	}
}
