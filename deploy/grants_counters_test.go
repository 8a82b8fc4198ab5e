package deploy

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

// Counting, reading, caching and verifying, with the login of deploy/grants/dragonfly.redis.
func TestGrants_CountersAndCacheWorkWithThem(t *testing.T) {
	t.Parallel()
	options := enginetest.RedisOptions(t, enginetest.Counters(t).URL())
	admin := redis.NewClient(options)
	t.Cleanup(func() { _ = admin.Close() })
	var command []any
	for _, word := range strings.Fields(readFile(t, "grants/dragonfly.redis")) {
		command = append(command, word)
	}
	if err := admin.Do(t.Context(), command...).Err(); err != nil {
		t.Fatal(err)
	}
	own := *options
	own.Username, own.Password = "tenantflow", "change-this"
	store, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: &own, Topic: "usage.events"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })

	session := store.Session("usage.events", 0)
	t.Cleanup(session.Close)
	doubted, err := session.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Begin(t.Context(), doubted, 0, dragonfly.Epoch{Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	begun, err := session.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	day := time.Now().UTC().Truncate(24 * time.Hour)
	counted, err := session.Count(t.Context(), dragonfly.Batch{Epoch: begun.Epoch.Number, From: 0, To: 2},
		[]dragonfly.Call{{User: "u1", Day: day, Mode: dragonfly.Clear, Limit: 1, Thresholds: dragonfly.NewThresholds([]int{80, 100}), Events: 2, Points: 6, Offsets: []int64{0, 1}}}, nil)
	if err != nil || counted[0].Calls != 2 || len(counted[0].Due) == 0 {
		t.Fatalf("got %+v, %v, want 2 calls and a threshold", counted, err)
	}
	if err := session.Clear(t.Context(), counted[0].Due); err != nil {
		t.Error(err)
	}
	if err := session.Note(t.Context(), dragonfly.Progress{Epoch: begun.Epoch.Number, Offset: 2}); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"a", "b"} {
		ask := dragonfly.Reservation{User: "u1", ID: id, Calls: 1, TTL: time.Minute, CallLimit: 9, PointsLimit: -1}
		if got, _, err := store.Reserve(t.Context(), ask, false); err != nil || got.Decision != dragonfly.Granted {
			t.Errorf("got %+v, %v, want it granted", got, err)
		}
	}
	if err := store.Release(t.Context(), "u1", "a"); err != nil {
		t.Error(err)
	}
	if _, err := session.Count(t.Context(), dragonfly.Batch{Epoch: begun.Epoch.Number, From: 2, To: 3},
		[]dragonfly.Call{{User: "u1", Day: day, Mode: dragonfly.Clear, Limit: -1, Events: 0, Holds: []string{"b"}}}, nil); err != nil {
		t.Error(err)
	}
	if c, err := store.Counters(t.Context(), "u1", day); err != nil || c.APICalls != 2 {
		t.Errorf("got %+v, %v, want 2 calls", c, err)
	}
	days := 0
	if err := store.UserDays(t.Context(), day, func(*dragonfly.UserDay) error { days++; return nil }); err != nil || days != 1 {
		t.Errorf("%d days of users, %v, want 1", days, err)
	}
	if _, err := store.Resum(t.Context(), "u1", day); err != nil {
		t.Error(err)
	}
	if _, err := store.Memory(t.Context()); err != nil {
		t.Error(err)
	}

	cache := dragonfly.NewCache(store.Client())
	if refused, err := cache.PutSubscriptions(t.Context(), []*directory.Subscription{{Version: 1, Origin: "a", UserID: "u1", CompanyID: "acme", CachedAt: time.Now()}}); err != nil || len(refused) > 0 {
		t.Errorf("refused %v, %v", refused, err)
	}
	if n := admin.Exists(t.Context(), "subscription:{u1}").Val(); n != 1 {
		t.Error("the subscription is not cached")
	}
	if _, err := cache.Subscriptions(t.Context(), []string{"u1"}); err != nil { // what can't be read is deleted
		t.Error(err)
	}
	if err := cache.Invalidate(t.Context(), map[string]int64{"u1": 2}, map[string]int64{"acme": 2}, "a"); err != nil {
		t.Error(err)
	}
	if _, err := cache.Sweep(t.Context(), "b", 0); err != nil {
		t.Error(err)
	}

	for _, refused := range [][]any{{"FLUSHALL"}, {"CONFIG", "GET", "*"}, {"KEYS", "*"}, {"ACL", "LIST"}, {"SET", "other", "1"}, {"SHUTDOWN"}, {"MONITOR"}, {"EVAL", "return redis.call('SET', 'other', '1')", "0"}} {
		if err := store.Client().Do(t.Context(), refused...).Err(); err == nil || !strings.Contains(err.Error(), "NOPERM") && !strings.Contains(err.Error(), "can't") {
			t.Errorf("%v: got %v, want it refused", refused, err)
		}
	}
}
