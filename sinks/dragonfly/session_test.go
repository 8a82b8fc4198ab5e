package dragonfly_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

// open gives a store on a Redis of its own, and a client to look at it.
func open(t *testing.T) (*dragonfly.Store, *redis.Client, *engine.Redis) {
	t.Helper()
	r := enginetest.Redis(t)
	o, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	store, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: o, Topic: "usage.events"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store, client, r
}

// today is midnight.
func today() time.Time { return time.Now().UTC().Truncate(24 * time.Hour) }

// call is n events of a user with identities from a first one on, three data points each.
func call(user string, limit int64, first uint64, n int) dragonfly.Call {
	c := dragonfly.Call{User: user, Day: today(), Bucket: 1000, Limit: limit}
	for i := range n {
		c.Identities = append(c.Identities, first+uint64(i))
		c.Points = append(c.Points, 3)
		c.Offsets = append(c.Offsets, int64(100+i))
	}
	return c
}

func count(t *testing.T, s *dragonfly.Session, epoch int64, calls ...dragonfly.Call) []dragonfly.Counted {
	t.Helper()
	counted, err := s.Count(t.Context(), epoch, calls)
	if err != nil {
		t.Fatal(err)
	}
	return counted
}

func TestAnIdentityIsCountedOnceAlsoInTheNextBucket(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := store.Session("usage.events", 0)
	defer s.Close()
	// More than the 256 and 512 members at which servers change how they keep a set.
	for range 2 {
		for first := uint64(1); first < 2000; first += 400 {
			count(t, s, 1, call("u", -1, first, 400))
		}
	}
	got := count(t, s, 1, call("u", -1, 1901, 200))
	if got[0].New != 100 || got[0].Calls != 2100 {
		t.Errorf("%+v, want 100 new ones of 2100", got[0])
	}
	next := call("u", -1, 2001, 200)
	next.Bucket++
	if got = count(t, s, 1, next); got[0].New != 100 || got[0].Calls != 2200 {
		t.Errorf("in the next bucket: %+v, want 100 new ones of 2200", got[0])
	}
	c, err := store.Counters(t.Context(), "u", time.Now())
	if err != nil || c != (dragonfly.Counters{APICalls: 2200, DataPoints: 6600}) {
		t.Errorf("%+v, %v", c, err)
	}
	for _, key := range client.Keys(t.Context(), "*").Val() {
		if left := client.TTL(t.Context(), key).Val(); left <= 0 {
			t.Errorf("key %s expires in %s", key, left)
		}
	}
	left := client.TTL(t.Context(), dragonfly.QuotaKey("u", today())).Val()
	if want := time.Until(today().Add(72 * time.Hour)); left > want+time.Second || left < want-time.Minute {
		t.Errorf("the counter expires in %s, want %s: the day and two more", left, want)
	}
}

func TestDataPointsOfKnownEventsAreLeftOut(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s := store.Session("usage.events", 0)
	defer s.Close()
	one := call("u", -1, 1, 4)
	one.Points = []uint32{4294967295, 0, 7, 4294967295}
	count(t, s, 1, one)
	two := call("u", -1, 3, 4) // 3 and 4 are known
	two.Points = []uint32{7, 4294967295, 1, 4294967295}
	got := count(t, s, 1, two)
	c, err := store.Counters(t.Context(), "u", time.Now())
	if want := int64(3*4294967295 + 8); err != nil || got[0].New != 2 || c.DataPoints != want || c.APICalls != 6 {
		t.Errorf("%+v, %+v, %v; want %d data points", got[0], c, err, want)
	}
}

func TestAThresholdIsDueUntilItIsCleared(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s := store.Session("usage.events", 3)
	defer s.Close()
	if got := count(t, s, 1, call("u", 10, 1, 7)); len(got[0].Due) != 0 {
		t.Fatalf("due at 7 of 10: %+v", got[0].Due)
	}
	got := count(t, s, 1, call("u", 10, 8, 5))[0].Due
	if len(got) != 2 || got[0].Percent != 80 || got[0].Calls != 8 || got[0].Offset != 100 || got[0].Partition != 3 || got[0].Limit != 10 ||
		got[1].Percent != 100 || got[1].Calls != 10 || got[1].Offset != 102 {
		t.Fatalf("due at 12 of 10: %+v", got)
	}
	// The same events again, and with another limit or none: it is still due.
	for _, limit := range []int64{10, -1} {
		if again := count(t, s, 1, call("u", limit, 8, 5))[0].Due; len(again) != 2 {
			t.Errorf("a second time, limit %d: %+v", limit, again)
		}
	}
	if err := s.Clear(t.Context(), got[:1]); err != nil {
		t.Fatal(err)
	}
	if left := count(t, s, 1, call("u", 10, 20, 1))[0].Due; len(left) != 1 || left[0].Percent != 100 {
		t.Errorf("after one was cleared: %+v", left)
	}
	if err := s.Clear(t.Context(), got); err != nil { // one of them once more
		t.Fatal(err)
	}
	if left := count(t, s, 1, call("u", 10, 21, 1))[0].Due; len(left) != 0 {
		t.Errorf("after all were cleared: %+v", left)
	}
	// A limit of 0 is exceeded by the first call, and a lowered one by the next.
	if got := count(t, s, 1, call("z", 0, 1, 1))[0].Due; len(got) != 2 || got[0].Calls != 1 {
		t.Errorf("limit 0: %+v", got)
	}
	if got := count(t, s, 1, call("u", 5, 30, 2))[0].Due; len(got) != 2 || got[0].Calls != 15 || got[0].Offset != 100 {
		t.Errorf("a lowered limit: %+v", got)
	}
}

// The store may have been away for so long that the day's counters have expired when the scripts run at last.
func TestACountAfterTheEndOfItsDayLeavesNoKeyBehind(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := store.Session("usage.events", 0)
	defer s.Close()
	c := call("u", 10, 1, 20)
	c.Day = today().AddDate(0, 0, -5)
	count(t, s, 7, c)
	for _, key := range client.Keys(t.Context(), "quota*").Val() {
		if client.TTL(t.Context(), key).Val() < 0 {
			t.Errorf("%s never expires", key)
		}
	}
}

func TestANewEpochClearsAndAnOldOneIsRefused(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s := store.Session("usage.events", 0)
	defer s.Close()
	count(t, s, 5, call("u", 3, 1, 4))
	got := count(t, s, 6, call("u", 3, 1, 3))
	if got[0].New != 3 || got[0].Calls != 3 || len(got[0].Due) != 2 {
		t.Errorf("in a new epoch: %+v", got[0])
	}
	if _, err := s.Count(t.Context(), 5, []dragonfly.Call{call("u", 3, 9, 1)}); !errors.Is(err, dragonfly.ErrMoved) {
		t.Errorf("in an old epoch: %v", err)
	}
	if got = count(t, s, 6, call("u", 3, 9, 1)); got[0].Calls != 4 {
		t.Errorf("after that: %+v", got[0])
	}
}

func TestProgressMovesOnlyFromWhereItIs(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	ctx := t.Context()
	a, b := store.Session("usage.events", 1), store.Session("usage.events", 1)
	defer a.Close()
	defer b.Close()
	lost, err := store.Rebuilding(ctx)
	if err != nil || !lost {
		t.Errorf("without progress: rebuilding %t, %v", lost, err)
	}
	none, err := a.Load(ctx)
	if err != nil || none.Epoch != 0 || !none.New {
		t.Fatalf("%+v, %v", none, err)
	}
	for range 2 { // the second finds that the epoch has begun
		if err := a.Begin(ctx, none, 2, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	began, err := b.Load(ctx)
	if err != nil || began.Epoch == 0 || !began.New {
		t.Fatalf("%+v, %v", began, err)
	}
	first, err := a.Move(ctx, began, dragonfly.Progress{Done: 10, Pending: 20, At: time.Now(), Until: 100, Floor: today()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Move(ctx, began, dragonfly.Progress{Done: 5, Pending: 5}); !errors.Is(err, dragonfly.ErrMoved) {
		t.Errorf("from where it was: %v", err)
	}
	found, err := b.Load(ctx)
	if err != nil || !found.Same(first) || found.Done != 10 || found.Pending != 20 || found.Until != 100 || !found.Floor.Equal(today()) || found.Clean() {
		t.Errorf("%+v, want %+v; %v", found, first, err)
	}
	if lost, err = store.Rebuilding(ctx); err != nil || !lost {
		t.Errorf("short of Until, and partition 0 new: rebuilding %t, %v", lost, err)
	}
	if _, err = b.Move(ctx, found, dragonfly.Progress{Done: 100, Pending: 100, Until: 100}); err != nil {
		t.Fatal(err)
	}
	zero := store.Session("usage.events", 0)
	defer zero.Close()
	found, err = zero.Load(ctx)
	if err != nil || !found.New {
		t.Fatalf("%+v, %v", found, err)
	}
	if _, err = zero.Move(ctx, found, dragonfly.Progress{}); err != nil {
		t.Fatal(err)
	}
	if lost, err = store.Rebuilding(ctx); err != nil || lost {
		t.Errorf("when all are there: rebuilding %t, %v", lost, err)
	}
	if left := client.TTL(ctx, "quota_progress:{usage.events}").Val(); left <= 24*time.Hour {
		t.Errorf("the progress expires in %s", left)
	}
	client.HSet(ctx, "quota_progress:{usage.events}", "p1", "junk")
	if found, err = b.Load(ctx); err != nil || !found.New {
		t.Errorf("junk: %+v, %v; want it counted anew", found, err)
	}
	if _, err = b.Move(ctx, found, dragonfly.Progress{Done: 1, Pending: 1}); err != nil {
		t.Errorf("junk is not replaced: %v", err)
	}
}

func TestASessionIsOfNoUseAfterItsConnectionIsLost(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := store.Session("usage.events", 0)
	defer s.Close()
	count(t, s, 1, call("u", -1, 1, 1))
	if err := client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Count(t.Context(), 1, []dragonfly.Call{call("u", -1, 2, 1)}); err == nil {
			t.Fatal("it went on over another connection, and would not see that the server is another one")
		} else if dragonfly.Classify(err) != dragonfly.Transient {
			t.Errorf("not transient: %v", err)
		}
	}
	other := store.Session("usage.events", 0)
	defer other.Close()
	if got := count(t, other, 1, call("u", -1, 2, 1)); got[0].Calls != 2 {
		t.Errorf("%+v", got[0])
	}
}

func TestAServerThatForgetsItsScriptsIsToldAgain(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := store.Session("usage.events", 0)
	defer s.Close()
	for i := range uint64(3) {
		if got := count(t, s, 1, call("u", 1, i+1, 1)); got[0].Calls != int64(i)+1 {
			t.Errorf("%+v", got[0])
		}
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAServerThatEvictsIsRefused(t *testing.T) {
	t.Parallel()
	_, client, r := open(t)
	if err := client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	o, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	_, err = dragonfly.Open(t.Context(), dragonfly.Config{Options: o, Topic: "usage.events"})
	if err == nil || dragonfly.Classify(err) != dragonfly.Fatal || !strings.Contains(err.Error(), "allkeys-lru") {
		t.Errorf("%v", err)
	}
}

func TestTheScriptRunsByHand(t *testing.T) {
	t.Parallel()
	_, _, r := open(t)
	_, port, _ := strings.Cut(r.Addr(), ":")
	run := func(script string, args ...string) string {
		out, err := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-p", port, "--eval", script}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(bytes.Trim(out, "\"\n"))
	}
	day := today().Format(time.DateOnly)
	args := strings.Fields(fmt.Sprintf("quota:{u}:%s quota_seen:{u}:1:5 quota_seen:{u}:1:4 , 1 %d 7800 1 1 1 0 12 12 100 first-event", day, time.Now().Add(time.Hour).Unix()))
	if got := run("count.lua", args...); got != "1 1 80:1:1:0:100 100:1:1:0:100" {
		t.Errorf("the example in count.lua answers %q", got)
	}
	if got := run("clear.lua", "quota:{u}:"+day, ",", "80:1:1:0:100"); got != "(integer) 1" && got != "1" {
		t.Errorf("clear.lua answers %q", got)
	}
}

func TestManyUsersAreReadTogetherAndJunkIsTheFaultOfOneOnly(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := store.Session("usage.events", 0)
	defer s.Close()
	count(t, s, 1, call("a", -1, 1, 2), call("c", -1, 1, 3))
	client.Set(t.Context(), dragonfly.QuotaKey("b", today()), "junk", time.Minute)
	counters, wrong, rebuilding, err := store.Read(t.Context(), []string{"a", "b", "c", "d"}, time.Now())
	if err != nil || !rebuilding { // there is no progress
		t.Fatalf("rebuilding %t, %v", rebuilding, err)
	}
	want := []dragonfly.Counters{{APICalls: 2, DataPoints: 6}, {}, {APICalls: 3, DataPoints: 9}, {}}
	if !slices.Equal(counters, want) {
		t.Errorf("%+v, want %+v", counters, want)
	}
	if len(wrong) != 1 || wrong[1] == nil || !strings.Contains(wrong[1].Error(), "user b") {
		t.Errorf("wrong: %v", wrong)
	}
}
