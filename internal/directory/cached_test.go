package directory_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/directory"
)

func TestJunkInTheCacheIsAMissAndReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "pro", 1, 20)
	now := time.Now().UTC().Format(time.RFC3339)
	good := func(user, version, cachedAt string) string {
		return fmt.Sprintf(`{"user_id":%q,"company_id":%q,"subscription_tier":"free","tier_limits":{"daily_api_calls":1,"storage_mb":1,"max_users":1,"retention_days":1,"features_enabled":[]},"version":%s,"cached_at":%q}`,
			user, w.company(1), version, cachedAt)
	}
	junk := []string{"", "junk", "null", "7", `"text"`, "[]", "{}", `{"user_id":`, strings.Repeat("[", 5000),
		good("somebody-else", "900000", now), good(w.user(11), "0", now), good(w.user(12), "-7", now), good(w.user(13), "1e300", now),
		good(w.user(14), `"900000"`, now), good(w.user(15), "900000", "2001-01-01T00:00:00Z"), good(w.user(16), "900000", "2999-01-01T00:00:00Z"),
		strings.Replace(good(w.user(17), "900000", now), `"daily_api_calls":1`, `"daily_api_calls":-1`, 1), "\xff\x00"}
	for i, text := range junk {
		w.redis.Set(t.Context(), "subscription:{"+w.user(1+i)+"}", text, 0)
	}
	w.redis.RPush(t.Context(), "subscription:{"+w.user(19)+"}", "a list")
	w.redis.HSet(t.Context(), "subscription:{"+w.user(20)+"}", "a", "hash")
	w.redis.Set(t.Context(), "company_config:{"+w.company(1)+"}", "junk", 0)
	w.redis.SAdd(t.Context(), "billing_period:{"+w.company(1)+"}", "a set")
	n := w.start()
	for i := range 20 {
		user := w.user(1 + i)
		if s, err := n.User(t.Context(), user); err != nil || s.Tier != "pro" || s.UserID != user {
			t.Errorf("user %d is %+v, %v", 1+i, s, err)
		}
		if cached, err := n.cache.Subscriptions(t.Context(), []string{user}); err != nil || cached[0] == nil || cached[0].Tier != "pro" {
			t.Errorf("user %d is cached as %+v, %v", 1+i, cached, err)
		}
		if ttl := w.redis.TTL(t.Context(), "subscription:{"+user+"}").Val(); ttl <= 0 || ttl > time.Hour {
			t.Errorf("user %d is cached for %s", 1+i, ttl)
		}
	}
	if c, err := n.CompanyConfig(t.Context(), w.company(1)); err != nil || c.Tier != "pro" {
		t.Errorf("the configuration is %+v, %v", c, err)
	}
	if p, err := n.BillingPeriod(t.Context(), w.company(1)); err != nil || p.Status != "active" {
		t.Errorf("the period is %+v, %v", p, err)
	}
	if c, err := n.cache.CompanyConfig(t.Context(), w.company(1)); err != nil || c == nil {
		t.Errorf("the configuration is cached as %+v, %v", c, err)
	}
}

func TestAnEntryNewerThanPostgresGivesWayToIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "pro", 1, 1)
	first := w.make()
	s := *first.must(t, w.user(1))
	// As after a restore of Postgres from a backup: what was cached is of a later time than what is true. A process that
	// has not read the feed takes nothing from Dragonfly.
	s.Version, s.Tier = s.Version+1000, "enterprise"
	if _, err := first.cache.PutSubscriptions(t.Context(), []*directory.Subscription{&s}); err != nil {
		t.Fatal(err)
	}
	second := w.make()
	for range 2 {
		if got := second.must(t, w.user(1)); got.Tier != "pro" {
			t.Errorf("the tier is %s", got.Tier)
		}
	}
	if cached, err := second.cache.Subscriptions(t.Context(), []string{w.user(1)}); err != nil || cached[0] == nil || cached[0].Tier != "pro" {
		t.Errorf("cached is %+v, %v", cached, err)
	}
}

func TestEveryKeyExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "pro", 1, 50)
	n := w.start()
	for i := range 50 {
		n.must(t, w.user(1+i))
		if i == 25 {
			w.setTier(1, "enterprise")
		}
	}
	if _, err := n.CompanyConfig(t.Context(), w.company(1)); err != nil {
		t.Fatal(err)
	}
	longest := map[string]time.Duration{"subscription": time.Hour, "company_config": 2 * time.Hour, "billing_period": 24 * time.Hour}
	seen := map[string]int{}
	for _, key := range w.redis.Keys(t.Context(), "*{"+w.id+"-*").Val() {
		kind, _, _ := strings.Cut(key, ":")
		seen[kind]++
		ttl := w.redis.TTL(t.Context(), key).Val()
		if most := longest[kind]; ttl > most || ttl < most-2*time.Minute {
			t.Errorf("%s expires in %s", key, ttl)
		}
	}
	if len(seen) != 3 {
		t.Errorf("the keys are %v", seen)
	}
}

func TestShowUse_BlockIsInTheCachedSubscription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 3)
	n := w.start()
	n.must(t, w.user(1))
	key := "subscription:{" + w.user(1) + "}"
	cached := func() (document map[string]any) {
		if err := json.Unmarshal([]byte(w.redis.Get(t.Context(), key).Val()), &document); err != nil {
			t.Fatal(err)
		}
		return document
	}
	for _, name := range []string{"version", "cached_from", "user_id", "email", "subscription_tier", "subscription_status", "subscription_start_date",
		"subscription_end_date", "subscription_limits", "created_at", "updated_at", "last_activity", "tier_limits", "billing_status", "cached_at"} {
		if _, ok := cached()[name]; !ok {
			t.Errorf("%s is not cached", name)
		}
	}
	if document := cached(); !reflect.DeepEqual(document["subscription_limits"], document["tier_limits"]) || document["usage_quota"] != nil {
		t.Errorf("before anything was counted, it is %v", document)
	}
	queries := n.queries.Load()
	now := time.Now()
	n.ShowUse([]directory.Use{
		{User: w.user(2), Day: now, APICalls: 1, DataPoints: 1}, // not held by the process
		{User: w.user(1), Day: now.AddDate(0, 0, -1), APICalls: 900, DataPoints: 1},
		{User: w.user(1), Day: now, APICalls: 7, DataPoints: 70},
	})
	w.eventually("the block is written", func() bool { return cached()["usage_quota"] != nil })
	if block := cached()["usage_quota"].(map[string]any); block["api_calls"] != 7.0 || block["data_points"] != 70.0 || block["daily_limit"] != 1000.0 ||
		block["date"] != now.UTC().Format(time.DateOnly) {
		t.Errorf("the cached block is %v", block)
	}
	if ttl := w.redis.TTL(t.Context(), key).Val(); ttl > directory.QuotaAge || ttl < directory.QuotaAge-time.Minute {
		t.Errorf("with a block the entry lives for %s", ttl)
	}
	// Within minutes the user's next uses cost a look into memory, nothing else.
	for i := range 1000 {
		n.ShowUse([]directory.Use{{User: w.user(1), Day: now, APICalls: int64(8 + i)}})
	}
	n.must(t, w.user(3))
	if block := cached()["usage_quota"].(map[string]any); block["api_calls"] != 7.0 {
		t.Errorf("the block was written again: %v", block)
	}
	if w.redis.Exists(t.Context(), "subscription:{"+w.user(2)+"}").Val() != 0 || n.queries.Load() != queries+1 {
		t.Error("a user was looked up to show a block")
	}
	// The block is of no concern to callers of a Directory.
	other := w.start()
	if s := other.must(t, w.user(1)); s.Quota != (directory.QuotaBlock{}) || other.queries.Load() != 0 {
		t.Errorf("another process has %+v after %d queries", s.Quota, other.queries.Load())
	}
}

func TestSubscription_ExpiresWithItsQuotaBlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 1)
	n := w.start()
	s := *n.must(t, w.user(1))
	s.Quota = directory.QuotaBlock{Date: time.Now().UTC().Format(time.DateOnly), APICalls: 1, AsOf: time.Now().Add(-901 * time.Second)}
	if err := w.redis.Del(t.Context(), "subscription:{"+w.user(1)+"}").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.cache.PutSubscriptions(t.Context(), []*directory.Subscription{&s}); err != nil {
		t.Fatal(err)
	}
	if text := w.redis.Get(t.Context(), "subscription:{"+w.user(1)+"}").Val(); text != "" {
		t.Errorf("a block of 901 s ago is stored: %s", text)
	}
}

// A period may roll over without a change in Postgres.
func TestNoCopyOutlivesThePeriodItTellsOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	var user *directory.Subscription
	var period *directory.BillingPeriod
	company := 0
	// On a machine that is busy a period may be over before it is looked at.
	for margin := 2 * time.Second; user == nil || user.EndDate.After(time.Now().Add(margin)) || !user.EndDate.Equal(*period.PeriodEnd); margin *= 2 {
		company++
		w.register(company, "free", company, company)
		w.exec(`UPDATE subscriptions SET period_start = now() - interval '1 month' + $2, period_end = now() + $2 WHERE company_id = $1`, w.company(company), margin)
		user = n.must(t, w.user(company))
		var err error
		if period, err = n.BillingPeriod(t.Context(), w.company(company)); err != nil {
			t.Fatal(err)
		}
		if margin > time.Minute {
			t.Fatalf("%+v, %+v", user, period)
		}
	}
	ends := *user.EndDate
	for _, key := range []string{"subscription:{" + w.user(company) + "}", "billing_period:{" + w.company(company) + "}"} {
		most := time.Until(ends) + 2*time.Second
		if left := w.redis.PTTL(t.Context(), key).Val(); left > most {
			t.Errorf("%s lives for %s, want %s at most: as long as what it tells of", key, left, most)
		}
	}
	w.eventually("the next period is told", func() bool {
		next, err := n.BillingPeriod(t.Context(), w.company(company))
		return err == nil && next.PeriodEnd.After(ends) && n.must(t, w.user(company)).EndDate.After(ends)
	})
}
