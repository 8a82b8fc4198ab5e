package directory

import (
	"fmt"
	"testing"
	"time"
)

// started has the feed begun and read to its end.
func started(k *known, since, now time.Time, changes ...Change) {
	k.begin("o", now)
	k.note(changes, now)
	k.cover(since)
}

func TestAnEpochBeginsWithEveryChangeThatIsNews(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := newKnown()
	started(k, now.Add(-time.Hour), now)
	start := k.epoch.Load()
	user, company := Change{CompanyID: "c", UserID: "u", Version: 5}, Change{CompanyID: "c", Version: 6}
	users, companies := k.note([]Change{user, company}, now)
	if len(users) != 1 || users["u"] != 5 || len(companies) != 1 || companies["c"] != 6 || k.epoch.Load() != start+1 {
		t.Errorf("told users %v, companies %v, epoch %d after %d", users, companies, k.epoch.Load(), start)
	}
	if k.note(nil, now); k.epoch.Load() != start+1 {
		t.Error("nothing is news")
	}
	for _, c := range []struct {
		company, user string
		epoch         uint64
		changed       bool
	}{
		{"c", "u", start, true}, {"c", "other", start, true}, {"", "u", start, true}, {"d", "other", start, false},
		{"c", "u", start + 1, false}, {"c", "", start, true}, {"", "other", start, false}, {"d", "u", start - 1, true},
	} {
		if got := k.changedSince(c.company, c.user, c.epoch); got != c.changed {
			t.Errorf("changed since %+v: %v", c, got)
		}
	}
}

func TestAnEntryOfDragonflyIsJudgedByVersionAndTime(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := newKnown()
	if v := k.judge("c", "u", vintage{1, now, "o"}); v != unsure {
		t.Errorf("before the feed was read: %v", v)
	}
	started(k, now.Add(-time.Hour), now, Change{CompanyID: "c", UserID: "u", Version: 5}, Change{CompanyID: "c", Version: 3}, Change{CompanyID: "d", Version: 9})
	for _, c := range []struct {
		company, user string
		version       int64
		age           time.Duration
		want          verdict
	}{
		{"c", "u", 5, 0, current}, {"c", "u", 4, 0, outdated}, {"c", "other", 3, 0, current}, {"c", "other", 2, 0, outdated},
		{"c", "", 3, 0, current}, {"d", "u", 8, 0, outdated}, {"e", "v", 1, 0, current},
		{"e", "v", 1, 2 * time.Hour, unsure}, {"c", "u", 4, 2 * time.Hour, outdated}, {"c", "", 9, 2 * time.Hour, unsure},
	} {
		if got := k.judge(c.company, c.user, vintage{c.version, now.Add(-c.age), "o"}); got != c.want {
			t.Errorf("%+v is judged %v", c, got)
		}
	}
}

func TestWhatIsForgottenIsNoLongerVouchedFor(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := newKnown()
	k.users.most, k.companies.most = 100, 100
	started(k, now.Add(-time.Hour), now)
	epoch := k.epoch.Load()
	for i := range 1000 {
		now = now.Add(time.Second)
		k.note([]Change{{CompanyID: fmt.Sprint("c", i), Version: int64(10 + i)}, {CompanyID: "x", UserID: fmt.Sprint("u", i), Version: int64(5000 + i)}}, now)
		if n := len(k.users.newer) + len(k.users.older) + len(k.companies.newer) + len(k.companies.older); n > 400 {
			t.Fatalf("%d changes are remembered", n)
		}
	}
	if !k.changedSince("y", "v", epoch) {
		t.Error("an entry from before the remembered changes counts as new")
	}
	if k.changedSince("y", "v", k.epoch.Load()) {
		t.Error("an entry of now counts as old")
	}
	if v := k.judge("c0", "", vintage{1, now.Add(-15 * time.Minute), "o"}); v == current {
		t.Error("an entry whose change was forgotten counts as current")
	}
	if v := k.judge("y", "", vintage{1, now, "o"}); v != current {
		t.Errorf("a new entry is judged %v", v)
	}
	// Also when nothing happens for days.
	for range 10 {
		now = now.Add(24 * time.Hour)
		k.note(nil, now)
		if k.changedSince("y", "v", k.epoch.Load()) {
			t.Fatal("an entry of now counts as old")
		}
	}
}

func TestAFeedThatBeginsAnewMakesEverythingOld(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := newKnown()
	started(k, now.Add(-time.Hour), now, Change{CompanyID: "c", Version: 1000})
	epoch := k.epoch.Load()
	started(k, now, now, Change{CompanyID: "c", Version: 7})
	if !k.changedSince("d", "u", epoch) {
		t.Error("an entry from before counts as new")
	}
	if v := k.judge("c", "", vintage{1000, now.Add(-time.Second), "o"}); v != unsure {
		t.Errorf("a cached entry from before is judged %v", v)
	}
	if v := k.judge("c", "", vintage{7, now, "o"}); v != current {
		t.Errorf("a cached entry from after is judged %v", v)
	}
}
