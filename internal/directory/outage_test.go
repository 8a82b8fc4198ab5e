package directory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
)

func TestWithoutDragonflyPostgresAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 10)
	n := w.start()
	n.must(t, w.user(1))
	w.cache.Refuse(true)
	w.cache.Cut()
	for i := range 5 {
		if s := n.must(t, w.user(2+i)); s.Tier != "free" {
			t.Errorf("user %d has tier %s", 2+i, s.Tier)
		}
	}
	if _, err := n.BillingPeriod(t.Context(), w.company(1)); err != nil {
		t.Error(err)
	}
	if !n.log.has("does not answer; Postgres is asked instead") {
		t.Error("nobody is told")
	}
	w.setTier(1, "pro")
	w.eventually("a change is seen", func() bool { return n.tierOf(t.Context(), w.user(1)) == "pro" })

	w.cache.Refuse(false)
	cached := func(user int) bool {
		return w.redis.Exists(t.Context(), "subscription:{"+w.user(user)+"}").Val() == 1
	}
	w.eventually("Dragonfly is used again", func() bool {
		w.exec(`UPDATE user_directory SET email = email || '.' WHERE user_id = $1`, w.user(10))
		n.must(t, w.user(10))
		return cached(10)
	})
	if !n.log.has("answers again") {
		t.Error("nobody is told that it is back")
	}
}

func TestADragonflyThatHangsCostsLittle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 300)
	own := enginetest.Redis(t)
	w.cache = enginetest.Proxy(t, own.Addr())
	metrics := prometheus.NewRegistry()
	n := w.start(func(c *directory.Config) { c.CacheTimeout, c.Metrics = 50*time.Millisecond, metrics })
	n.must(t, w.user(1))
	began := time.Now()
	if err := own.Freeze(); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if s := n.must(t, w.user(1+i)); s.Tier != "free" {
			t.Fatalf("user %d has tier %s", 1+i, s.Tier)
		}
	}
	w.setTier(1, "pro")
	w.eventually("a change is seen", func() bool { return n.tierOf(t.Context(), w.user(1)) == "pro" })
	// It is left alone for a second after each failure, by the look-ups and by what deletes changed entries.
	if most := 2*time.Since(began).Seconds() + 4; failed(t, metrics) > most {
		t.Errorf("it was asked in vain %v times, %v would do", failed(t, metrics), most)
	}
	if err := own.Thaw(); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is used again", func() bool {
		w.exec(`UPDATE user_directory SET email = email || '.' WHERE user_id = $1`, w.user(2))
		n.must(t, w.user(2))
		return n.log.has("answers again")
	})
}

// failed is how many requests to Dragonfly have failed.
func failed(t *testing.T, metrics *prometheus.Registry) float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "tenantflow_directory_errors_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == "dragonfly" {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatal("there is no such metric")
	return 0
}

func TestWithoutPostgresWhatIsCachedIsServedAndTheRestIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 10)
	n, other := w.start(), w.start()
	n.must(t, w.user(1))
	other.must(t, w.user(2))
	late := w.make()
	for range 2 {
		if _, err := n.CompanyConfig(t.Context(), w.company(1)); err != nil {
			t.Fatal(err)
		}
	}

	w.postgres.Refuse(true)
	w.postgres.Cut()
	late.follow()
	polls := n.polls.Load()
	for user, from := range map[int]string{1: "the process", 2: "Dragonfly"} {
		if s := n.must(t, w.user(user)); s.Tier != "free" {
			t.Errorf("from %s: %+v", from, s)
		}
		// One that has never read the feed can't know whether it is old; it is better than nothing.
		if s := late.must(t, w.user(user)); s.Tier != "free" {
			t.Errorf("user %d, from a process that began now: %+v", user, s)
		}
	}
	if _, err := late.BillingPeriod(t.Context(), w.company(1)); err != nil {
		t.Errorf("the period, from a process that began now: %v", err)
	}
	for _, n := range []*node{n, late} {
		if _, err := n.User(t.Context(), w.user(3)); err == nil || errors.Is(err, directory.ErrUnknown) {
			t.Errorf("a user who is cached nowhere: %v", err)
		}
		if _, err := n.CompanyConfig(t.Context(), w.company(2)); err == nil || errors.Is(err, directory.ErrUnknown) {
			t.Errorf("a company that is cached nowhere: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.User(ctx, w.user(4)); err == nil || errors.Is(err, directory.ErrUnknown) {
		t.Errorf("for somebody who has gone: %v", err)
	}
	w.setTier(1, "pro") // past the proxy
	if age := n.FeedAge(); n.polls.Load() > polls+1 || age <= 0 {
		t.Errorf("the feed was read %d times, and is %s old", n.polls.Load()-polls, age)
	}

	w.postgres.Refuse(false)
	for _, n := range []*node{n, late} {
		w.eventually("the change is seen", func() bool { return n.tierOf(t.Context(), w.user(1)) == "pro" })
		w.eventually("the others are known", func() bool { return n.tierOf(t.Context(), w.user(3)) == "pro" })
	}
}
