package dragonfly_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

// cacheClient connects to the shared Redis.
func cacheClient(t *testing.T) *redis.Client {
	t.Helper()
	client := redis.NewClient(enginetest.RedisOptions(t, enginetest.SharedRedis(t).URL()))
	t.Cleanup(func() { client.Close() })
	return client
}

// subscriptionOf is a subscription of a version, whose load began age ago.
func subscriptionOf(user string, version int64, age time.Duration) *directory.Subscription {
	return &directory.Subscription{UserID: user, CompanyID: "cache-c", Tier: "pro", Status: "active", BillingStatus: "active",
		Limits:  tier.Limits{DailyAPICalls: tier.Unlimited, StorageMB: 5, MaxUsers: 3, RetentionDays: 2, Features: []string{"all"}},
		Version: version, Origin: "o", CachedAt: time.Now().Add(-age).UTC().Truncate(time.Microsecond)}
}

func TestTheCacheGivesBackWhatWasPut(t *testing.T) {
	t.Parallel()
	cache, client := dragonfly.NewCache(cacheClient(t)), cacheClient(t)
	end := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	want := subscriptionOf("cache-u1", 7, 10*time.Minute)
	want.EndDate = &end
	want.Quota = directory.QuotaBlock{Date: "2031-05-06", APICalls: 3, DataPoints: 30, DailyLimit: tier.Unlimited, AsOf: end}
	if refused, err := cache.PutSubscriptions(t.Context(), []*directory.Subscription{want}); err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	got, err := cache.Subscriptions(t.Context(), []string{"cache-u0", "cache-u1", "cache-u2"})
	if err != nil {
		t.Fatal(err)
	}
	wanted, _ := json.Marshal(want)
	found, _ := json.Marshal(got[1])
	if len(got) != 3 || got[0] != nil || got[2] != nil || string(found) != string(wanted) {
		t.Errorf("put %s, got %s", wanted, found)
	}
	if ttl := client.TTL(t.Context(), "subscription:{cache-u1}").Val(); ttl < 49*time.Minute || ttl > 50*time.Minute+time.Second {
		t.Errorf("what was loaded 10 minutes ago lives for %s", ttl)
	}
	if refused, err := cache.PutSubscriptions(t.Context(), []*directory.Subscription{subscriptionOf("cache-u2", 7, time.Hour)}); err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	if client.Exists(t.Context(), "subscription:{cache-u2}").Val() != 0 {
		t.Error("what has no time left was stored")
	}
}

func TestTheCacheKeepsTheHighestVersion(t *testing.T) {
	t.Parallel()
	cache := dragonfly.NewCache(cacheClient(t))
	put := func(version int64) bool {
		refused, err := cache.PutSubscriptions(t.Context(), []*directory.Subscription{subscriptionOf("cache-v0", version, 0), subscriptionOf("cache-v1", version, 0)})
		if err != nil {
			t.Fatal(err)
		}
		return len(refused) == 0
	}
	for _, step := range []struct {
		version int64
		stored  bool
	}{{10, true}, {9, false}, {10, true}, {1 << 53, true}, {1<<53 - 1, false}} {
		if put(step.version) != step.stored {
			t.Errorf("version %d stored: %v", step.version, !step.stored)
		}
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if _, err := cache.PutSubscriptions(t.Context(), []*directory.Subscription{subscriptionOf("cache-v2", 1+rand.Int64N(10_000), 0)}); err != nil {
					t.Error(err)
				}
			}
			if _, err := cache.PutSubscriptions(t.Context(), []*directory.Subscription{subscriptionOf("cache-v2", 10_001, 0)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, err := cache.Subscriptions(t.Context(), []string{"cache-v2"}); err != nil || got[0].Version != 10_001 {
		t.Errorf("left is %+v, %v", got[0], err)
	}
}

func TestTheCacheOfACompany(t *testing.T) {
	t.Parallel()
	cache, client := dragonfly.NewCache(cacheClient(t)), cacheClient(t)
	put := func(version int64) bool {
		at := time.Now().UTC()
		stored, err := cache.PutCompany(t.Context(),
			&directory.CompanyConfig{CompanyID: "cache-k", Tier: "pro", MaxUsers: 25, BillingEmail: "a@b", FeaturesEnabled: []string{}, SupportLevel: "email",
				Settings: map[string]json.RawMessage{"a": json.RawMessage(`{"b":1}`)}, Version: version, Origin: "o", CachedAt: at},
			&directory.BillingPeriod{CompanyID: "cache-k", PeriodStart: &at, Status: "active", Version: version, Origin: "o", CachedAt: at})
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	if !put(5) || put(4) || !put(6) {
		t.Error("a version was refused that is not older, or an older one was stored")
	}
	c, err := cache.CompanyConfig(t.Context(), "cache-k")
	if err != nil || c == nil || c.Version != 6 || string(c.Settings["a"]) != `{"b":1}` || c.MaxUsers != 25 {
		t.Errorf("the configuration is %+v, %v", c, err)
	}
	p, err := cache.BillingPeriod(t.Context(), "cache-k")
	if err != nil || p == nil || p.Version != 6 || p.PeriodStart == nil || p.PeriodEnd != nil {
		t.Errorf("the period is %+v, %v", p, err)
	}
	for key, most := range map[string]time.Duration{"company_config:{cache-k}": 2 * time.Hour, "billing_period:{cache-k}": 24 * time.Hour} {
		if ttl := client.TTL(t.Context(), key).Val(); ttl > most || ttl < most-time.Minute {
			t.Errorf("%s lives for %s", key, ttl)
		}
	}
	if err := cache.Invalidate(t.Context(), nil, map[string]int64{"cache-k": 6}, "o"); err != nil {
		t.Fatal(err)
	}
	if c, err := cache.CompanyConfig(t.Context(), "cache-k"); err != nil || c == nil {
		t.Errorf("what is as new as the change is gone: %v", err)
	}
	if err := cache.Invalidate(t.Context(), nil, map[string]int64{"cache-k": 7, "cache-l": 1}, "o"); err != nil {
		t.Fatal(err)
	}
	if n := client.Exists(t.Context(), "company_config:{cache-k}", "billing_period:{cache-k}").Val(); n != 0 {
		t.Errorf("%d keys older than the change are left", n)
	}
}

func TestTheCacheWorksAfterItsScriptsAreLost(t *testing.T) {
	t.Parallel()
	own := enginetest.Redis(t)
	client := redis.NewClient(enginetest.RedisOptions(t, own.URL()))
	defer client.Close()
	cache := dragonfly.NewCache(client)
	for version := int64(1); version <= 2; version++ {
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		subs := make([]*directory.Subscription, 2500)
		older := map[string]int64{}
		for i := range subs {
			subs[i] = subscriptionOf(fmt.Sprint("u", i), version, 0)
			older[subs[i].UserID] = version + 1
		}
		if refused, err := cache.PutSubscriptions(t.Context(), subs); err != nil || len(refused) > 0 {
			t.Fatal(refused, err)
		}
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if n := client.DBSize(t.Context()).Val(); n != 2500 {
			t.Errorf("%d subscriptions are cached", n)
		}
		if err := cache.Invalidate(t.Context(), older, nil, "o"); err != nil {
			t.Fatal(err)
		}
		if n := client.DBSize(t.Context()).Val(); n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
	}
}

func TestTheCachesScriptsReplaceWhatTheyCanNotRead(t *testing.T) {
	t.Parallel()
	client := cacheClient(t)
	cache := dragonfly.NewCache(client)
	junk := map[string]func(key string){
		"text":      func(key string) { client.Set(t.Context(), key, "junk", 0) },
		"number":    func(key string) { client.Set(t.Context(), key, "12", 0) },
		"versions":  func(key string) { client.Set(t.Context(), key, `{"version":"900"}`, 0) },
		"huge":      func(key string) { client.Set(t.Context(), key, `{"version":1e300}`, 0) },
		"null":      func(key string) { client.Set(t.Context(), key, `{"version":null}`, 0) },
		"nested":    func(key string) { client.Set(t.Context(), key, strings.Repeat("[", 5000), 0) },
		"elsewhere": func(key string) { client.Set(t.Context(), key, `{"version":900,"cached_from":"another"}`, 0) },
		"beyond":    func(key string) { client.Set(t.Context(), key, `{"version":9007199254740993,"cached_from":"o"}`, 0) },
		"endless": func(key string) {
			client.Set(t.Context(), key, `{"version":`+strings.Repeat("9", 400)+`,"cached_from":"o"}`, 0)
		},
		"later": func(key string) { client.Set(t.Context(), key, `{"user_id":"u","version":900,"cached_from":"o"}`, 0) },
		"list":  func(key string) { client.RPush(t.Context(), key, "a") },
		"hash":  func(key string) { client.HSet(t.Context(), key, "a", "b") },
	}
	for name, put := range junk {
		user := "cache-junk-" + name
		key := "subscription:{" + user + "}"
		put(key)
		if refused, err := cache.PutSubscriptions(t.Context(), []*directory.Subscription{subscriptionOf(user, 5, 0)}); err != nil || len(refused) > 0 {
			t.Errorf("%s: refused %v, %v", name, refused, err)
		}
		if ttl := client.TTL(t.Context(), key).Val(); ttl <= 0 {
			t.Errorf("%s: the key lives for %s", name, ttl)
		}
		client.Del(t.Context(), key)
		put(key)
		if err := cache.Invalidate(t.Context(), map[string]int64{user: 1}, nil, "o"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if client.Exists(t.Context(), key).Val() != 0 {
			t.Errorf("%s: it is still there", name)
		}
	}
}

// Dragonfly's JSON parser recurses: a value of 1,000 levels ends the whole server. Redis' refuses it, and a script that asked it would
// take the document for junk.
func TestCache_DocumentsAreNotParsed(t *testing.T) {
	t.Parallel()
	client := cacheClient(t)
	cache := dragonfly.NewCache(client)
	const key = "subscription:{cache-deep}"
	deep := `{"version":9,"cached_from":"o","x":` + strings.Repeat("[", 100_000)
	if err := client.Set(t.Context(), key, deep, time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if refused, err := cache.PutSubscriptions(t.Context(), []*directory.Subscription{subscriptionOf("cache-deep", 8, 0)}); err != nil || len(refused) != 1 {
		t.Errorf("refused %v, %v", refused, err)
	}
	if err := cache.Invalidate(t.Context(), map[string]int64{"cache-deep": 9}, nil, "o"); err != nil || client.Get(t.Context(), key).Val() != deep {
		t.Errorf("what is as new as the change is gone, %v", err)
	}
	scripts, err := filepath.Glob("*.lua")
	if err != nil || len(scripts) < 6 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for _, script := range scripts {
		if source, err := os.ReadFile(script); err != nil || strings.Contains(string(source), "cjson") {
			t.Errorf("%s parses JSON, %v", script, err)
		}
	}
}

func TestCache_SweepLeavesTheOrigin(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(enginetest.RedisOptions(t, enginetest.Redis(t).URL()))
	defer client.Close()
	cache := dragonfly.NewCache(client)
	subs := make([]*directory.Subscription, 3000)
	for i := range subs {
		subs[i] = subscriptionOf(fmt.Sprint("u", i), int64(1+i), 0)
		if i%3 == 0 {
			subs[i].Origin = "other"
		}
		if err := client.HSet(t.Context(), fmt.Sprintf("quota:{u%d}:2026-11-23", i), "api_calls", 1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cache.PutSubscriptions(t.Context(), subs); err != nil {
		t.Fatal(err)
	}
	period := &directory.BillingPeriod{CompanyID: "c", Version: 1, Origin: "other", CachedAt: time.Now()}
	config := &directory.CompanyConfig{CompanyID: "c", Version: 1, Origin: "o", CachedAt: time.Now()}
	if _, err := cache.PutCompany(t.Context(), config, period); err != nil {
		t.Fatal(err)
	}
	for cursor, rounds := uint64(0), 0; ; rounds++ {
		var err error
		if cursor, err = cache.Sweep(t.Context(), "o", cursor); err != nil {
			t.Fatal(err)
		}
		if cursor == 0 {
			break
		}
	}
	if n := client.DBSize(t.Context()).Val(); n != 3000+2000+1 {
		t.Errorf("%d keys are left", n)
	}
	left, err := cache.Subscriptions(t.Context(), []string{"u0", "u1", "u2", "u3"})
	if err != nil || left[0] != nil || left[1] == nil || left[2] == nil || left[3] != nil || client.Exists(t.Context(), "company_config:{c}").Val() != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestCache_DocumentsBeginWithVersionAndOrigin(t *testing.T) {
	t.Parallel()
	settings := map[string]json.RawMessage{"a": json.RawMessage(`1`), "version2": json.RawMessage(`2`)}
	for _, document := range []any{
		subscriptionOf("u", 7, 0), &directory.CompanyConfig{Version: 7, Origin: "o", Settings: settings}, &directory.CompanyConfig{Version: 7, Origin: "o"},
		&directory.BillingPeriod{Version: 7, Origin: "o"},
	} {
		if text, err := json.Marshal(document); err != nil || !strings.HasPrefix(string(text), `{"version":7,"cached_from":"o","`) || !json.Valid(text) {
			t.Errorf("%s, %v", text, err)
		}
	}
}

func TestTheCachesScriptsRunByHand(t *testing.T) {
	t.Parallel()
	client := cacheClient(t)
	host, port, _ := strings.Cut(enginetest.SharedRedis(t).Addr(), ":")
	eval := func(arguments ...string) string {
		out, err := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-h", host, "-p", port, "--eval"}, arguments...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		return strings.TrimSpace(string(out))
	}
	const key = "subscription:{cache-by-hand}"
	for _, step := range []struct{ script, version, want string }{
		{"cache_put.lua", "7", "1"}, {"cache_put.lua", "6", "0"}, {"cache_drop.lua", "7", "0"}, {"cache_drop.lua", "8", "1"}, {"cache_drop.lua", "8", "0"},
	} {
		arguments := []string{step.script, key, ",", step.version, "a"}
		if step.script == "cache_put.lua" {
			arguments = []string{step.script, key, ",", `{"version":` + step.version + `,"cached_from":"a"}`, step.version, "a", "3600"}
		}
		if got := eval(arguments...); got != step.want {
			t.Errorf("%s with version %s answers %s", step.script, step.version, got)
		}
	}
	if client.Exists(t.Context(), key).Val() != 0 {
		t.Error("the key is still there")
	}
}
