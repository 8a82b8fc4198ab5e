package directory_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
)

func TestResolveAnswersInTheOrderOfTheUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 3)
	w.register(2, "pro", 4, 4)
	n := w.start()
	users := []string{w.user(4), "nobody-" + w.id, w.user(1), w.user(4), "no}id", "", w.user(3)}
	out := make([]*directory.Subscription, len(users))
	out[1] = &directory.Subscription{} // left over from before
	began := time.Now()
	for range 2 { // from Postgres, then from memory
		if err := n.Resolve(t.Context(), users, out); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{w.user(4), "", w.user(1), w.user(4), "", "", w.user(3)} {
			switch {
			case want == "" && out[i] != nil, want != "" && (out[i] == nil || out[i].UserID != want):
				t.Errorf("user %q is %+v", users[i], out[i])
			}
		}
	}
	// Who is unknown is asked for again after a second, which may pass between the two on a busy machine.
	again := n.queries.Load() - 1
	if again < 0 || again > int64(time.Since(began)/time.Second) || n.asked.Load() != 4+again {
		t.Errorf("it took %d queries for %d users; ids that can't be any must not be asked for", n.queries.Load(), n.asked.Load())
	}
	if err := n.Resolve(t.Context(), users, out[:1]); err == nil {
		t.Error("too few places for the answers are no error")
	}
}

func TestAColdCacheMakesFewQueries(t *testing.T) {
	t.Parallel()
	const users, asks = 1000, 10_000
	w := newWorld(t)
	w.register(1, "pro", 1, users)
	n := w.start()
	// Each query takes as long as a busy server's, so that the questions meet.
	n.delay(func() { <-time.After(5 * time.Millisecond) })
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i := range asks {
		all.Go(func() {
			<-begin
			if s, err := n.User(t.Context(), w.user(1+i%users)); err != nil || s.UserID != w.user(1+i%users) {
				t.Errorf("user %d is %+v, %v", 1+i%users, s, err)
			}
		})
	}
	close(begin)
	all.Wait()
	if n.asked.Load() != users {
		t.Errorf("%d users were asked for %d times", users, n.asked.Load())
	}
	if q := n.queries.Load(); q > users/10 {
		t.Errorf("%d questions for %d users made %d queries", asks, users, q)
	}
	if n.most.Load() > 2 {
		t.Errorf("%d queries were made at the same time", n.most.Load())
	}
}

func TestAnUnknownUserIsAskedForOncePerSecondAndSeenWhenThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 1)
	n := w.start()
	began := time.Now()
	for range 2000 {
		if _, err := n.User(t.Context(), w.user(2)); !errors.Is(err, directory.ErrUnknown) {
			t.Fatalf("an unknown user: %v", err)
		}
		if _, err := n.BillingPeriod(t.Context(), w.company(2)); !errors.Is(err, directory.ErrUnknown) {
			t.Fatalf("an unknown company: %v", err)
		}
	}
	most := int64(time.Since(began)/time.Second) + 1
	if n.queries.Load() > most || n.companies.Load() > most {
		t.Errorf("%d queries for an unknown user, %d for an unknown company", n.queries.Load(), n.companies.Load())
	}
	w.register(2, "free", 2, 2)
	w.eventually("the new user is seen", func() bool { return n.tierOf(t.Context(), w.user(2)) == "free" })
	w.eventually("the new company is seen", func() bool { _, err := n.BillingPeriod(t.Context(), w.company(2)); return err == nil })
	if keys := w.redis.Keys(t.Context(), "*nobody*").Val(); len(keys) > 0 {
		t.Errorf("unknown users are in the cache: %s", keys)
	}
}

func TestACompanysConfigurationAndPeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "pro", 1, 1)
	// What the tier decides comes from the subscription, whatever stands in the configuration.
	w.exec(`UPDATE company_config SET config = '{"theme": "dark", "max_users": 7000, "version": "x"}' WHERE company_id = $1`, w.company(1))
	n := w.start()
	for _, from := range []string{"Postgres", "the process", "Dragonfly"} {
		if from == "Dragonfly" {
			n = w.start()
		}
		c, err := n.CompanyConfig(t.Context(), w.company(1))
		if err != nil {
			t.Fatal(err)
		}
		if c.CompanyID != w.company(1) || c.Tier != "pro" || c.MaxUsers != tier.Limit(25) || c.BillingEmail != w.company(1)+"@example.com" ||
			c.SupportLevel != "email" || len(c.FeaturesEnabled) != 5 || string(c.Settings["theme"]) != `"dark"` || len(c.Settings) != 1 {
			t.Errorf("from %s: %+v", from, c)
		}
		p, err := n.BillingPeriod(t.Context(), w.company(1))
		if err != nil {
			t.Fatal(err)
		}
		if p.CompanyID != w.company(1) || p.Status != "active" || p.PeriodStart == nil || p.PeriodEnd == nil || !p.PeriodEnd.After(*p.PeriodStart) {
			t.Errorf("from %s: %+v", from, p)
		}
		if from == "Dragonfly" && n.companies.Load() > 0 {
			t.Error("Postgres was asked for what is in Dragonfly")
		}
	}
	text := w.redis.Get(t.Context(), "company_config:{"+w.company(1)+"}").Val()
	for _, part := range []string{`"company_id":"`, `"subscription_tier":"pro"`, `"max_users":25`, `"billing_email":"`, `"features_enabled":["basic_trading",`,
		`"support_level":"email"`, `"theme":"dark"`, `"version":`, `"cached_at":"`} {
		if !strings.Contains(text, part) {
			t.Errorf("the cached configuration %s lacks %s", text, part)
		}
	}
	w.setTier(1, "enterprise")
	w.eventually("the new tier is seen", func() bool {
		c, err := n.CompanyConfig(t.Context(), w.company(1))
		return err == nil && c.Tier == "enterprise" && c.MaxUsers == tier.Unlimited
	})
	w.exec(`UPDATE company_config SET config = '{"theme": "light"}' WHERE company_id = $1`, w.company(1))
	w.eventually("the new setting is seen", func() bool {
		c, err := n.CompanyConfig(t.Context(), w.company(1))
		return err == nil && string(c.Settings["theme"]) == `"light"`
	})
}

func TestWhatWaitsWhenTheDirectoryClosesIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 10)
	n := w.make(func(c *directory.Config) { c.Loads, c.LoadUsers = 1, 1 })
	asked, closed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.delay(func() { once.Do(func() { close(asked) }); <-closed })
	users := make([]string, 10)
	for i := range users {
		users[i] = w.user(1 + i)
	}
	result := make(chan error, 1)
	go func() { result <- n.Resolve(t.Context(), users, make([]*directory.Subscription, 10)) }()
	<-asked
	go func() { n.Close(); close(closed) }()
	w.eventually("new questions are refused", func() bool { _, err := n.User(t.Context(), w.user(9)); return err != nil })
	closed <- struct{}{}
	select {
	case err := <-result:
		if err == nil || errors.Is(err, directory.ErrUnknown) {
			t.Errorf("the look-up ended with %v", err)
		}
	case <-time.After(enginetest.Patience):
		t.Fatal("the look-up waits on")
	}
}
