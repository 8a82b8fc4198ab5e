package directory_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
)

func TestAnUpdateInPostgresIsSeenWithoutAnythingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 3)
	w.register(2, "free", 10, 10)
	n := w.start()
	before := n.must(t, w.user(1))
	if before.Tier != "free" || before.Limits.DailyAPICalls != 1000 || before.BillingStatus != "active" || before.Status != "active" ||
		before.CompanyID != w.company(1) || before.Email != "u1@example.com" || before.EndDate == nil || before.Version == 0 {
		t.Fatalf("the user of a free company is %+v", before)
	}
	n.must(t, w.user(2))
	n.must(t, w.user(3))

	w.setTier(1, "enterprise")
	w.eventually("the new tier is seen", func() bool { return n.tierOf(t.Context(), w.user(1)) == "enterprise" })
	if s := n.must(t, w.user(2)); s.Tier != "enterprise" || s.Limits.DailyAPICalls != tier.Unlimited {
		t.Errorf("another user of the company is %+v", s)
	}
	w.exec(`UPDATE user_directory SET subscription_status = 'suspended' WHERE user_id = $1`, w.user(1))
	w.eventually("the suspension is seen", func() bool { return n.must(t, w.user(1)).Status == "suspended" })
	w.exec(`UPDATE subscriptions SET status = 'past_due' WHERE company_id = $1`, w.company(1))
	w.eventually("the status is seen", func() bool { return n.must(t, w.user(3)).BillingStatus == "past_due" })
	w.exec(`UPDATE user_directory SET company_id = $2 WHERE user_id = $1`, w.user(2), w.company(2))
	w.eventually("the other company is seen", func() bool { return n.must(t, w.user(2)).CompanyID == w.company(2) })
	w.exec(`DELETE FROM user_directory WHERE user_id = $1`, w.user(3))
	w.eventually("the end of a user is seen", func() bool {
		_, err := n.User(t.Context(), w.user(3))
		return errors.Is(err, directory.ErrUnknown)
	})
	w.exec(`DELETE FROM subscriptions WHERE company_id = $1`, w.company(1))
	w.eventually("the end of a subscription is seen", func() bool { return n.tierOf(t.Context(), w.user(1)) == "" })
	// What is left is of lower versions than what was deleted. It is cached all the same.
	queries := n.queries.Load()
	for range 20 {
		n.must(t, w.user(1))
	}
	if more := n.queries.Load() - queries; more > 1 {
		t.Errorf("a user without a subscription was loaded %d times", more)
	}
}

func TestALoadOvertakenByAChangeIsRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 1)
	n := w.start()
	var once sync.Once
	overtakenBy := func(tierName string) func() {
		return func() {
			once.Do(func() {
				// Postgres has answered. Before any caller has the answer, the tier changes, and the feed reports it.
				w.setTier(1, tierName)
				polls := n.polls.Load()
				w.eventually("the change is told", func() bool { return n.polls.Load() > polls+2 })
			})
		}
	}
	n.delay(overtakenBy("pro"))
	if s := n.must(t, w.user(1)); s.Tier != "pro" {
		t.Errorf("the load of a user brought %s, which is what was before the change", s.Tier)
	}
	once = sync.Once{}
	n.delay(overtakenBy("enterprise"))
	if c, err := n.CompanyConfig(t.Context(), w.company(1)); err != nil || c.Tier != "enterprise" {
		t.Errorf("the load of a company brought %+v, %v, which is what was before the change", c, err)
	}
}

// A load that is overtaken must not write the earlier state into Dragonfly under the change's version: no reader could notice.
func TestALoadOvertakenByAChangeIsNotCachedAsWhatCameAfterIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 1)
	slow, quick := w.start(), w.start()
	// Postgres answers; the tier changes, and both processes read the change; before the load is repeated, the other process asks.
	overtaken := func(tierName string, ask func()) func() {
		answers := 0
		return func() {
			switch answers++; answers {
			case 1:
				w.setTier(1, tierName)
				for _, n := range []*node{slow, quick} {
					polls := n.polls.Load()
					w.eventually("the change is told", func() bool { return n.polls.Load() > polls+2 })
				}
			case 2:
				ask()
			}
		}
	}
	slow.delay(overtaken("pro", func() {
		if got := quick.tierOf(t.Context(), w.user(1)); got != "pro" {
			t.Errorf("another process sees %s, which is what was before the change", got)
		}
	}))
	slow.must(t, w.user(1))
	slow.delay(overtaken("enterprise", func() {
		if c, err := quick.CompanyConfig(t.Context(), w.company(1)); err != nil || c.Tier != "enterprise" {
			t.Errorf("another process sees the company as %+v, %v, which is what was before the change", c, err)
		}
	}))
	if _, err := slow.CompanyConfig(t.Context(), w.company(1)); err != nil {
		t.Fatal(err)
	}
}

func TestTwoProcessesNeitherServeNorWriteBackAnOlderVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 1)
	slow, quick := w.start(), w.start()
	var once sync.Once
	slow.delay(func() {
		once.Do(func() {
			// The slow one holds an answer of the old tier. The other one has learnt of the new tier and cached it.
			w.setTier(1, "pro")
			w.eventually("the quick one sees the change", func() bool { return quick.tierOf(t.Context(), w.user(1)) == "pro" })
		})
	})
	if s := slow.must(t, w.user(1)); s.Tier != "pro" {
		t.Errorf("the slow one serves %s", s.Tier)
	}
	cached, err := slow.cache.Subscriptions(t.Context(), []string{w.user(1)})
	if err != nil {
		t.Fatal(err)
	}
	if cached[0] != nil && cached[0].Tier != "pro" {
		t.Errorf("the slow one has written %s back", cached[0].Tier)
	}
}

func TestVersionsNeverGoBackWhateverRunsAtTheSameTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 5)
	nodes := []*node{w.start(), w.start(func(c *directory.Config) { c.Life = 30 * time.Millisecond })}
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	for i, n := range nodes {
		for reader := range 2 {
			readers.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), uint64(reader)))
				last := map[string]int64{}
				for ctx.Err() == nil {
					user := w.user(1 + random.IntN(5))
					s, err := n.User(ctx, user)
					if err != nil {
						if ctx.Err() == nil {
							t.Errorf("look %s up: %v", user, err)
						}
						return
					}
					if s.Version < last[user] {
						t.Errorf("%s went from version %d back to %d", user, last[user], s.Version)
						return
					}
					last[user] = s.Version
				}
			})
		}
	}
	for i := range 200 {
		if i%3 == 0 {
			w.exec(`UPDATE user_directory SET email = $2 WHERE user_id = $1`, w.user(1+i%5), fmt.Sprint("mail", i))
		} else {
			w.setTier(1, []string{"free", "pro", "enterprise"}[i%3])
		}
	}
	w.setTier(1, "pro")
	for _, n := range nodes {
		for i := range 5 {
			w.eventually("the last tier is seen", func() bool { return n.tierOf(t.Context(), w.user(1+i)) == "pro" })
		}
	}
}

func TestAnEntryThatWasOutdatedWhileNobodyLookedIsNotUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 2)
	first := w.make()
	first.must(t, w.user(1))
	if _, err := first.BillingPeriod(t.Context(), w.company(1)); err != nil {
		t.Fatal(err)
	}
	// No process follows the changes now.
	w.exec(`UPDATE subscriptions SET tier = 'pro', status = 'past_due' WHERE company_id = $1`, w.company(1))
	second := w.start()
	if s := second.must(t, w.user(1)); s.Tier != "pro" {
		t.Errorf("a process that began after the change serves %s", s.Tier)
	}
	if p, err := second.BillingPeriod(t.Context(), w.company(1)); err != nil || p.Status != "past_due" {
		t.Errorf("it serves the period %+v, %v", p, err)
	}
	queries := second.queries.Load()
	third := w.start()
	if s := third.must(t, w.user(1)); s.Tier != "pro" || third.queries.Load() != 0 {
		t.Errorf("a third one serves %s after %d queries; the second one had cached it (%d)", s.Tier, third.queries.Load(), queries)
	}
}

func TestAChangeOfACompanyDeletesWhatOthersReadByThemselves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 2500)
	users := make([]string, 2500)
	for i := range users {
		users[i] = w.user(1 + i)
	}
	n := w.start(func(c *directory.Config) { c.Members = c.Loader.(*loader).Members })
	if err := n.Resolve(t.Context(), users, make([]*directory.Subscription, len(users))); err != nil {
		t.Fatal(err)
	}
	keys := func() int64 {
		return w.redis.Exists(t.Context(), "subscription:{"+w.user(1)+"}", "subscription:{"+w.user(1234)+"}", "subscription:{"+w.user(2500)+"}").Val()
	}
	if keys() != 3 {
		t.Fatal("the users are not cached")
	}
	w.setTier(1, "pro")
	w.eventually("all users' keys are deleted", func() bool { return keys() == 0 })
}
