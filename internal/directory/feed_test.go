package directory

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// script is a Loader whose feed says what the test wants. It knows one user, whose version is the test's.
type script struct {
	mu       sync.Mutex
	down     bool
	changes  []Change
	position Position
	origin   string
	more     int // pages that are not the last
	asked    []Position
	version  int64
	loads    int
}

func (s *script) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *script) Users(context.Context, []string) ([]Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errors.New("down")
	}
	s.loads++
	return []Subscription{{UserID: "u", CompanyID: "c", Version: s.version, Origin: s.origin}}, nil
}

func (s *script) UserOf(context.Context, string, []string) (Subscription, error) {
	return Subscription{}, ErrUnknown
}

func (s *script) Company(context.Context, string) (Company, error) { return Company{}, ErrUnknown }

func (s *script) Changes(_ context.Context, since Position) (Feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return Feed{}, errors.New("down")
	}
	s.asked = append(s.asked, since)
	page := Feed{Changes: s.changes, Next: Position(s.origin) + s.position, Origin: s.origin, More: s.more > 0,
		Begun: since == "" || !strings.HasPrefix(string(since), s.origin)}
	s.more = max(s.more-1, 0)
	s.changes = nil // told once
	return page, nil
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// loaded is how many loads there were.
func (s *script) loaded() (n int) {
	s.set(func() { n = s.loads })
	return n
}

// began returns from where the feed was read since the test has cleared asked.
func (s *script) began() (asked []Position) {
	s.set(func() { asked = append(asked, s.asked...) })
	return asked
}

// following makes a directory that follows the script in the test's bubble.
func following(t *testing.T, s *script) (*Directory, *lines, func()) {
	t.Helper()
	log := &lines{}
	d := New(Config{Loader: s, Log: slog.New(slog.NewTextHandler(log, nil)), Metrics: prometheus.NewRegistry()})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	return d, log, func() { cancel(); running.Wait(); d.Close() }
}

// pass lets time pass, and what is due in it happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestABlindFeedIsToldOnceAndGoesOnFromWhereItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{origin: "a", position: "50", version: 1}
		d, log, stop := following(t, s)
		defer stop()
		pass(time.Second)
		if _, err := d.User(t.Context(), "u"); err != nil {
			t.Fatal(err)
		}
		s.set(func() { s.down = true })
		pass(29 * time.Second)
		if log.String() != "" {
			t.Errorf("after 29 s somebody is told: %s", log)
		}
		pass(10 * time.Second)
		if n := strings.Count(log.String(), "can't be read"); n != 1 {
			t.Errorf("after 39 s it is told %d times", n)
		}
		if age := d.FeedAge(); age < 39*time.Second || age > 40*time.Second {
			t.Errorf("the age is %s", age)
		}
		if _, err := d.User(t.Context(), "u"); err != nil {
			t.Errorf("what is held is not served: %v", err)
		}
		if testutil.ToFloat64(d.metrics.errors.WithLabelValues(byFeed)) < 10 {
			t.Error("the failures are not counted")
		}
		s.set(func() { s.down, s.changes, s.version, s.asked = false, []Change{{"c", "", 7}}, 7, nil })
		pass(time.Second)
		if asked := s.began(); asked[0] != "a50" {
			t.Errorf("it goes on from %v", asked)
		}
		if u, err := d.User(t.Context(), "u"); err != nil || u.Version != 7 {
			t.Errorf("after the feed is back the user is %+v, %v", u, err)
		}
		if strings.Count(log.String(), "is read again") != 1 || d.FeedAge() > time.Second {
			t.Errorf("nobody is told that it is back (%s): %s", d.FeedAge(), log)
		}
	})
}

func TestWhatWasLoadedAfterAChangeIsOfItsVersionWhateverIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// The change was a row's end, say: what is left has lower versions.
		s := &script{origin: "a", position: "50", version: 3, changes: []Change{{"c", "", 7}, {"c", "u", 6}}}
		d, _, stop := following(t, s)
		defer stop()
		pass(time.Second)
		if u, err := d.User(t.Context(), "u"); err != nil || u.Version != 7 {
			t.Errorf("the user is %+v, %v: others would take the entry for an old one", u, err)
		}
	})
}

func TestAFeedUnreadForLongerThanItReachesIsBegunAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{origin: "a", position: "50", version: 1}
		d, _, stop := following(t, s)
		defer stop()
		pass(time.Second)
		epoch := d.known.epoch.Load()
		s.set(func() { s.down = true })
		pass(3 * time.Hour)
		s.set(func() { s.down, s.asked = false, nil })
		pass(time.Second)
		if asked := s.began(); asked[0] != "" || asked[1] != "a50" {
			t.Errorf("it goes on from %v", asked)
		}
		if !d.known.changedSince("c", "u", epoch) {
			t.Error("what was held before counts as new")
		}
	})
}

func TestFeed_AnotherOriginMakesEverythingStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{origin: "a", position: "50", version: 900}
		d, log, stop := following(t, s)
		defer stop()
		pass(time.Second)
		if _, err := d.User(t.Context(), "u"); err != nil {
			t.Fatal(err)
		}
		s.set(func() { s.origin, s.version = "b", 300 })
		pass(time.Second)
		if u, err := d.User(t.Context(), "u"); err != nil || u.Version != 300 {
			t.Errorf("the user is %+v, %v", u, err)
		}
		if v := d.known.judge("c", "u", vintage{900, time.Now(), "a"}); v != unsure {
			t.Errorf("what another process has just cached from the server of before is judged %v", v)
		}
		if v := d.known.judge("c", "u", vintage{300, time.Now(), "b"}); v != current {
			t.Errorf("what is cached from the server that answers is judged %v", v)
		}
		if strings.Count(log.String(), "another server has taken over") != 1 {
			t.Errorf("logged: %s", log)
		}
	})
}

func TestFeed_DragonflyWaitsForTheLastPage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{origin: "a", position: "50", version: 1, more: math.MaxInt32}
		d := New(Config{Loader: s, Log: slog.New(slog.DiscardHandler)})
		defer d.Close()
		f := &follower{d: d, invalidator: newInvalidator(d)}
		entry := vintage{1, time.Now().Add(-time.Minute), "a"}
		for range 3 {
			if !f.poll(t.Context()) || d.known.judge("c", "u", entry) != unsure || !d.AsOf().IsZero() {
				t.Fatal("entries are used before the pages that may say that they are stale")
			}
		}
		pass(time.Second)
		s.set(func() { s.more = 0 })
		if f.poll(t.Context()) || d.known.judge("c", "u", entry) != current {
			t.Error("after the last page an entry is not used")
		}
		if age := d.FeedAge(); age < time.Second {
			t.Errorf("the feed counts as read %s ago: its first page was read before", age)
		}
	})
}

func TestApplied_FinalOnceReadAfterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{origin: "a", position: "50"}
		through, known := time.Now().Add(-time.Minute), time.Now().Add(500*time.Millisecond)
		d := New(Config{Loader: s, Log: slog.New(slog.DiscardHandler), Applied: func(context.Context) (time.Time, error) {
			if time.Now().Before(known) {
				return time.Time{}, nil
			}
			return through, nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = d.Run(ctx) })
		defer func() { cancel(); running.Wait(); d.Close() }()
		pass(500 * time.Millisecond)
		s.set(func() { s.down = true })
		pass(time.Minute)
		if at := d.AppliedThrough(); !at.IsZero() {
			t.Errorf("without a read of the feed since, it says %s", at)
		}
		s.set(func() { s.down = false })
		pass(time.Second)
		if at := d.AppliedThrough(); !at.Equal(through) {
			t.Errorf("it says %s, want %s", at, through)
		}
		s.set(func() { s.origin, s.down = "b", false })
		pass(300 * time.Millisecond)
		if at := d.AppliedThrough(); !at.IsZero() {
			t.Errorf("after a failover it says %s", at)
		}
	})
}

// Where nothing applies company events, what Postgres holds is all there is.
func TestApplied_WithoutCompanyEventsIsAsOf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, _, stop := following(t, &script{origin: "a", position: "50"})
		defer stop()
		pass(time.Second)
		if at := d.AppliedThrough(); at.IsZero() || !at.Equal(d.AsOf()) {
			t.Errorf("it says %s, want %s", at, d.AsOf())
		}
	})
}

func TestADirectoryLeavesItsMetricsToTheNext(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	for range 2 {
		d := New(Config{Loader: &script{}, Log: slog.New(slog.DiscardHandler), Metrics: registry})
		if families, err := registry.Gather(); err != nil || len(families) < 5 {
			t.Errorf("%d families, %v", len(families), err)
		}
		d.Close()
		d.Close()
	}
}

func TestAnEntryIsLookedUpAgainAfterItsLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{origin: "a", position: "50", version: 1}
		d, _, stop := following(t, s)
		defer stop()
		pass(time.Second)
		for range 3 * 60 { // three minutes, of which a quarter of five may be taken off
			if _, err := d.User(t.Context(), "u"); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
		}
		if n := s.loaded(); n != 1 {
			t.Errorf("%d loads in three minutes", n)
		}
		pass(3 * time.Minute)
		if _, err := d.User(t.Context(), "u"); err != nil || s.loaded() != 2 {
			t.Errorf("%d loads after six minutes, %v", s.loaded(), err)
		}
		pass(time.Hour)
		if n := d.users.len(); n != 0 {
			t.Errorf("%d users are held after an idle hour", n)
		}
	})
}
