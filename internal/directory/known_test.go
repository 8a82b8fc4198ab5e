package directory

import (
	"fmt"
	"testing"
	"time"
)

func TestAnEpochBeginsWithEveryChangeThatIsNews(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := newKnown()
	k.tell(nil, now.Add(-time.Hour), now)
	start := k.epoch.Load()
	user, company := Change{CompanyID: "c", UserID: "u", Version: 5}, Change{CompanyID: "c", Version: 6}
	users, companies := k.tell([]Change{user, company}, time.Time{}, now)
	if len(users) != 1 || users["u"] != 5 || len(companies) != 1 || companies["c"] != 6 || k.epoch.Load() != start+1 {
		t.Errorf("told users %v, companies %v, epoch %d after %d", users, companies, k.epoch.Load(), start)
	}
	for range 3 {
		if users, companies = k.tell([]Change{user, company}, time.Time{}, now); len(users)+len(companies) > 0 || k.epoch.Load() != start+1 {
			t.Errorf("what was told before is news again: %v, %v", users, companies)
		}
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
	if v := k.judge("c", "u", 1, now); v != unsure {
		t.Errorf("before the feed was read: %v", v)
	}
	k.tell([]Change{{CompanyID: "c", UserID: "u", Version: 5}, {CompanyID: "c", Version: 3}, {CompanyID: "d", Version: 9}}, now.Add(-time.Hour), now)
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
		if got := k.judge(c.company, c.user, c.version, now.Add(-c.age)); got != c.want {
			t.Errorf("%+v is judged %v", c, got)
		}
	}
}

func TestWhatIsForgottenIsNoLongerVouchedFor(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := newKnown()
	k.users.most, k.companies.most = 100, 100
	k.tell(nil, now.Add(-time.Hour), now)
	epoch := k.epoch.Load()
	for i := range 1000 {
		now = now.Add(time.Second)
		k.tell([]Change{{CompanyID: fmt.Sprint("c", i), Version: int64(10 + i)}, {CompanyID: "x", UserID: fmt.Sprint("u", i), Version: int64(5000 + i)}}, time.Time{}, now)
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
	if v := k.judge("c0", "", 1, now.Add(-15*time.Minute)); v == current {
		t.Error("an entry whose change was forgotten counts as current")
	}
	if v := k.judge("y", "", 1, now); v != current {
		t.Errorf("a new entry is judged %v", v)
	}
	// Also when nothing happens for days.
	for range 10 {
		now = now.Add(24 * time.Hour)
		k.tell(nil, time.Time{}, now)
		if k.changedSince("y", "v", k.epoch.Load()) {
			t.Fatal("an entry of now counts as old")
		}
	}
}

func TestAFeedThatBeginsAnewMakesEverythingOld(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := newKnown()
	k.tell([]Change{{CompanyID: "c", Version: 1000}}, now.Add(-time.Hour), now)
	epoch := k.epoch.Load()
	k.tell([]Change{{CompanyID: "c", Version: 7}}, now, now)
	if !k.changedSince("d", "u", epoch) {
		t.Error("an entry from before counts as new")
	}
	if v := k.judge("c", "", 1000, now.Add(-time.Second)); v != unsure {
		t.Errorf("a cached entry from before is judged %v", v)
	}
	if v := k.judge("c", "", 7, now); v != current {
		t.Errorf("a cached entry from after is judged %v", v)
	}
}
