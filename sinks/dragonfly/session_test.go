package dragonfly_test

import (
	"bytes"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

// onRedis is for tests that need what only Redis has: an eviction policy that is set by a command.
func onRedis(o *engine.Options) { o.Persistence = engine.AppendOnly }

// open gives a store on a server of its own, and a client to look at it.
func open(t *testing.T, options ...enginetest.Option) (*dragonfly.Store, *redis.Client, *engine.Redis) {
	t.Helper()
	r := enginetest.Counters(t, options...)
	o := enginetest.RedisOptions(t, r.URL())
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

// usual are the thresholds of most tiers.
var usual = dragonfly.NewThresholds([]int{80, 100})

// call is events of a user, three data points each.
func call(user string, limit int64, n int) dragonfly.Call {
	return dragonfly.Call{User: user, Day: today(), Mode: dragonfly.Clear, Limit: limit, Thresholds: usual, Events: n, Points: 3 * uint64(n)} // #nosec G115 -- small
}

// batch is a range of an epoch.
func batch(epoch, from, to int64) dragonfly.Batch {
	return dragonfly.Batch{Epoch: epoch, From: from, To: to}
}

// session opens one that has looked.
func session(t *testing.T, store *dragonfly.Store, partition int) *dragonfly.Session {
	t.Helper()
	s := store.Session("usage.events", partition)
	t.Cleanup(s.Close)
	if _, err := s.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func count(t *testing.T, s *dragonfly.Session, b dragonfly.Batch, calls ...dragonfly.Call) []dragonfly.Counted {
	t.Helper()
	for i := range calls {
		for k := len(calls[i].Offsets); k < calls[i].Events; k++ { // one after the other
			calls[i].Offsets = append(calls[i].Offsets, b.From+int64(k))
		}
	}
	counted, err := s.Count(t.Context(), b, calls, nil)
	if err != nil {
		t.Fatal(err)
	}
	return counted
}

func TestCount_TheWatermarkDecides(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s, other := session(t, store, 0), session(t, store, 1)
	steps := []struct {
		s         *dragonfly.Session
		from, to  int64
		events    int
		outcome   dragonfly.Outcome
		watermark int64
		calls     int64
	}{
		{s, 100, 200, 5, dragonfly.Added, 0, 5},
		{s, 100, 200, 5, dragonfly.Known, 0, 5},
		{s, 50, 150, 5, dragonfly.Known, 0, 5},
		{s, 150, 300, 9, dragonfly.Behind, 200, 0},
		{s, 200, 300, 4, dragonfly.Added, 0, 9},
		{other, 100, 200, 7, dragonfly.Added, 0, 16},
		{s, 400, 500, 1, dragonfly.Added, 0, 17},
	}
	for i, step := range steps {
		got := count(t, step.s, batch(1, step.from, step.to), call("u", -1, step.events))[0]
		if got.Outcome != step.outcome || got.Watermark != step.watermark || got.Calls != step.calls {
			t.Errorf("step %d: got %+v, want %+v", i, got, step)
		}
	}
	c, err := store.Counters(t.Context(), "u", time.Now())
	if err != nil || c != (dragonfly.Counters{APICalls: 17, DataPoints: 51}) {
		t.Errorf("%+v, %v", c, err)
	}
	want := time.Until(today().Add(72 * time.Hour))
	left := client.TTL(t.Context(), dragonfly.QuotaKey("u", today())).Val()
	if left > want+time.Second || left < want-time.Minute {
		t.Errorf("the counter expires in %s, want %s: the day and two more", left, want)
	}
}

func TestCount_AHigherEpochClearsItsPartitionsShare(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s, other := session(t, store, 0), session(t, store, 1)
	count(t, s, batch(5, 100, 200), call("u", 3, 4))
	count(t, other, batch(5, 100, 200), call("u", 3, 2))
	got := count(t, s, batch(6, 100, 150), call("u", 3, 3))[0]
	if got.Outcome != dragonfly.Added || got.Calls != 5 || len(got.Due) != 2 {
		t.Errorf("in a new epoch: %+v, want 3 and the 2 of the other partition", got)
	}
	if _, err := s.Count(t.Context(), batch(5, 200, 300), []dragonfly.Call{call("u", 3, 1)}, nil); !errors.Is(err, dragonfly.ErrMoved) {
		t.Errorf("in an old epoch: %v", err)
	}
	if got = count(t, s, batch(6, 150, 300), call("u", 3, 1))[0]; got.Calls != 6 {
		t.Errorf("after that: %+v", got)
	}
}

// A new epoch begins today. Yesterday's counters are there, or were lost.
func TestCount_AnEarlierDayIsKeptAndNotCreated(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s := session(t, store, 0)
	yesterday := func(user string, mode dragonfly.Mode, n int) dragonfly.Call {
		c := call(user, -1, n)
		c.Day, c.Mode = today().AddDate(0, 0, -1), mode
		return c
	}
	count(t, s, batch(5, 100, 200), yesterday("u", dragonfly.Clear, 50))
	got := count(t, s, batch(6, 900, 910), yesterday("u", dragonfly.Adopt, 1), yesterday("lost", dragonfly.Adopt, 1), yesterday("kept", dragonfly.Keep, 1))
	if got[0].Outcome != dragonfly.Added || got[0].Calls != 51 {
		t.Errorf("a late event: %+v, want it beside the 50", got[0])
	}
	if got[1].Outcome != dragonfly.Left {
		t.Errorf("a late event of a day that was lost: %+v, want it left out", got[1])
	}
	if got[2].Outcome != dragonfly.Added || got[2].Calls != 1 {
		t.Errorf("one where the log has lost its beginning: %+v", got[2])
	}
}

func TestCount_LogsHaveSharesOfTheirOwn(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s := session(t, store, 0)
	other := store.Session("eu.usage.events", 0)
	t.Cleanup(other.Close)
	if _, err := other.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	count(t, s, batch(900, 0, 5000), call("u", -1, 3000))
	if got := count(t, other, batch(7, 0, 10), call("u", -1, 1))[0]; got.Calls != 3001 {
		t.Errorf("another topic, with a lower epoch: %+v, want 3001", got)
	}
	again := batch(900, 0, 10)
	again.Incarnation = 1
	if got := count(t, s, again, call("u", -1, 2))[0]; got.Calls != 3003 {
		t.Errorf("the topic that was recreated: %+v, want 3003", got)
	}
}

func TestCount_NumbersStopAtTwoToThe53(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s := session(t, store, 0)
	for i := range int64(3) {
		c := call("u", -1, 1)
		c.Points = 1 << 52
		count(t, s, batch(1, 10*i, 10*i+10), c)
	}
	c, err := store.Counters(t.Context(), "u", time.Now())
	if err != nil || c.DataPoints != 1<<53 || c.APICalls != 3 {
		t.Errorf("%+v, %v; want %d data points", c, err, int64(1)<<53)
	}
}

func TestCount_AThresholdIsDueUntilItIsCleared(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s, other := session(t, store, 3), session(t, store, 4)
	if got := count(t, s, batch(1, 100, 107), call("u", 10, 7)); len(got[0].Due) != 0 {
		t.Fatalf("due at 7 of 10: %+v", got[0].Due)
	}
	got := count(t, s, batch(1, 107, 120), call("u", 10, 5))[0].Due
	if len(got) != 2 || got[0].Percent != 80 || got[0].Calls != 8 || got[0].Offset != 107 || got[0].Limit != 10 ||
		got[1].Percent != 100 || got[1].Calls != 10 || got[1].Offset != 109 {
		t.Fatalf("due at 12 of 10: %+v", got)
	}
	// The same events again, and with another limit or none: it is still due. It is no affair of another partition.
	for _, limit := range []int64{10, -1} {
		if again := count(t, s, batch(1, 107, 120), call("u", limit, 5))[0]; len(again.Due) != 2 || again.Outcome != dragonfly.Known {
			t.Errorf("a second time, limit %d: %+v", limit, again)
		}
	}
	if more := count(t, other, batch(1, 0, 120), call("u", 10, 1))[0].Due; len(more) != 0 {
		t.Errorf("another partition has to publish %+v", more)
	}
	if err := s.Clear(t.Context(), got[:1]); err != nil {
		t.Fatal(err)
	}
	if left := count(t, s, batch(1, 120, 130), call("u", 10, 1))[0].Due; len(left) != 1 || left[0].Percent != 100 {
		t.Errorf("after one was cleared: %+v", left)
	}
	if err := s.Clear(t.Context(), got); err != nil { // one of them once more
		t.Fatal(err)
	}
	if left := count(t, s, batch(1, 130, 140), call("u", 10, 1))[0].Due; len(left) != 0 {
		t.Errorf("after all were cleared: %+v", left)
	}
	// A limit of 0 is exceeded by the first call, and a lowered one by the next.
	if got := count(t, s, batch(1, 0, 140), call("z", 0, 1))[0].Due; len(got) != 2 || got[0].Calls != 1 {
		t.Errorf("limit 0: %+v", got)
	}
	lowered := call("u", 5, 2)
	if got := count(t, s, batch(1, 140, 150), lowered)[0].Due; len(got) != 2 || got[0].Calls != 16 || got[0].Offset != 140 {
		t.Errorf("a lowered limit: %+v", got)
	}
}

func TestCount_NoThresholdOfADayThatIsOver(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s := session(t, store, 0)
	c := call("u", 5, 6)
	c.Offsets = []int64{100, 101, 102, -1, -1, 105} // the fourth, which reaches 80 %, and the fifth were recorded too late
	got := count(t, s, batch(1, 100, 110), c)[0].Due
	if len(got) != 2 || got[0].Offset != 105 || got[0].Calls != 6 || got[1].Offset != 105 {
		t.Errorf("%+v, want both at the sixth", got)
	}
	over := call("v", 5, 6)
	over.Offsets = []int64{100, 101, -1, -1, -1, -1}
	if got := count(t, s, batch(1, 100, 110), over)[0].Due; len(got) != 0 {
		t.Errorf("%+v, want none", got)
	}
}

// Offsets are sent where the script asks for them: of those calls alone, whose answers stand in their places.
func TestCount_OffsetsAreAskedForInTheMidstOfOthers(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := session(t, store, 0)
	few, below, reaching, twice := call("few", 2, 2), call("below", 1000, 20), call("reaching", 20, 20), call("twice", 1, 20)
	got := count(t, s, batch(1, 100, 200), few, below, reaching, twice)
	for i, want := range []struct{ calls, due, first int64 }{{2, 2, 101}, {20, 0, 0}, {20, 2, 115}, {20, 2, 100}} {
		if c := got[i]; c.Outcome != dragonfly.Added || c.Calls != want.calls || int64(len(c.Due)) != want.due || want.due > 0 && c.Due[0].Offset != want.first {
			t.Errorf("call %d: %+v, want %+v", i, c, want)
		}
	}
	_, stat, _ := strings.Cut(client.Info(t.Context(), "commandstats").Val(), "cmdstat_evalsha:calls=") // the lines have no order
	if !strings.HasPrefix(stat, "10,") {                                                                // four without the script, the same again, and two with their offsets
		t.Errorf("evalsha was called %.10s... times, want 10", stat)
	}
}

// The store may have been away for so long that the day's counters have expired when the scripts run at last.
func TestACountAfterTheEndOfItsDayLeavesNoKeyBehind(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := session(t, store, 0)
	c := call("u", 10, 20)
	c.Day = today().AddDate(0, 0, -5)
	count(t, s, batch(7, 100, 200), c)
	for _, key := range client.Keys(t.Context(), "quota*").Val() {
		if client.TTL(t.Context(), key).Val() < 0 {
			t.Errorf("%s never expires", key)
		}
	}
}

func TestLook_AnEpochBeginsOnceAndProgressOnlyRises(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	ctx := t.Context()
	a, b := session(t, store, 0), session(t, store, 1)
	look := func(s *dragonfly.Session) *dragonfly.State {
		t.Helper()
		state, err := s.Look(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	rebuilding := func(why string, want bool) {
		t.Helper()
		if got, err := store.Rebuilding(ctx); err != nil || got != want {
			t.Errorf("%s: rebuilding %t, %v", why, got, err)
		}
	}
	rebuilding("without sentinels", true)
	lost := look(a)
	if lost.Doubt != "lost" {
		t.Fatalf("%+v", lost)
	}
	for _, s := range []*dragonfly.Session{a, b} { // the second finds that the epoch has begun
		if err := s.Begin(ctx, lost, 5<<12, dragonfly.Epoch{Day: today(), Partitions: 2}); err != nil {
			t.Fatal(err)
		}
	}
	began := look(b)
	number := began.Epoch.Number
	if began.Doubt != "" || number>>12 != 6 || !began.Epoch.Day.Equal(today()) || began.Epoch.Partitions != 2 || began.Lowest.Epoch != 0 {
		t.Fatalf("%+v", began)
	}
	note := func(s *dragonfly.Session, p dragonfly.Progress) {
		t.Helper()
		p.Epoch = number
		if err := s.Note(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	note(a, dragonfly.Progress{Offset: 10, Until: 100, Record: dragonfly.Record{Offset: 9, Hash: 1 << 63}})
	rebuilding("partition 1 has no progress", true)
	note(b, dragonfly.Progress{Offset: 50})
	rebuilding("partition 0 is behind where it was", true)
	note(a, dragonfly.Progress{Offset: 100, Until: 100, Keep: true, Record: dragonfly.Record{Offset: 99, Hash: 7}})
	rebuilding("all is there", false)
	note(a, dragonfly.Progress{Offset: 90, Until: 100, Record: dragonfly.Record{Offset: 89, Hash: 5}})
	now := look(a)
	if now.Lowest.Offset != 100 || !now.Covers(number, 100) || now.Covers(number, 101) || now.Covers(number+1, 1) {
		t.Errorf("progress was lowered: %+v", now)
	}
	if err := a.Note(ctx, dragonfly.Progress{Epoch: number + 1, Offset: 200}); !errors.Is(err, dragonfly.ErrMoved) {
		t.Errorf("in another epoch: %v", err)
	}
	client.HDel(ctx, dragonfly.SentinelKey(5), client.HKeys(ctx, dragonfly.SentinelKey(5)).Val()...)
	if err := a.Note(ctx, dragonfly.Progress{Epoch: number, Offset: 200, Record: dragonfly.Record{Offset: 199, Hash: 3}}); !errors.Is(err, dragonfly.ErrMoved) {
		t.Errorf("where a sentinel is missing: %v", err)
	}
	if n := client.Exists(ctx, dragonfly.SentinelKey(5)).Val(); n != 0 {
		t.Error("a note has created a sentinel")
	}
	if got := look(a); got.Doubt != "lost" || got.Covers(number, 0) {
		t.Errorf("where a sentinel is missing: %+v", got)
	}
	if err := b.Begin(ctx, look(b), 0, dragonfly.Epoch{Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	if got := look(a); got.Doubt != "" || got.Epoch.Number <= number || got.Lowest.Epoch != 0 || got.Latest.Record != (dragonfly.Record{Offset: 199, Hash: 3}) {
		t.Errorf("the next epoch: %+v", got)
	}
	rebuilding("in a new epoch", true)
	for k := range 8 {
		if left := client.TTL(ctx, dragonfly.SentinelKey(k)).Val(); left <= 24*time.Hour {
			t.Errorf("sentinel %d expires in %s", k, left)
		}
	}
}

func TestASessionIsOfNoUseAfterItsConnectionIsLost(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := session(t, store, 0)
	count(t, s, batch(1, 100, 110), call("u", -1, 1))
	if err := client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Count(t.Context(), batch(1, 110, 120), []dragonfly.Call{call("u", -1, 1)}, nil); err == nil {
			t.Fatal("it went on over another connection, and would not see that the server is another one")
		} else if dragonfly.Classify(err) != dragonfly.Transient {
			t.Errorf("not transient: %v", err)
		}
	}
	if got := count(t, session(t, store, 0), batch(1, 110, 120), call("u", -1, 1)); got[0].Calls != 2 {
		t.Errorf("%+v", got[0])
	}
}

func TestSession_NothingIsCountedBeforeALook(t *testing.T) {
	t.Parallel()
	store, _, _ := open(t)
	s := store.Session("usage.events", 0)
	defer s.Close()
	if _, err := s.Count(t.Context(), batch(1, 0, 10), []dragonfly.Call{call("u", -1, 1)}, nil); err == nil {
		t.Error("counted")
	}
	if err := s.Note(t.Context(), dragonfly.Progress{Epoch: 1}); err == nil {
		t.Error("noted")
	}
}

func TestAServerThatForgetsItsScriptsIsToldAgain(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := session(t, store, 0)
	for i := range int64(3) {
		if got := count(t, s, batch(1, 10*i, 10*i+10), call("u", 1, 1)); got[0].Calls != i+1 {
			t.Errorf("%+v", got[0])
		}
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAServerThatEvictsIsRefused(t *testing.T) {
	t.Parallel()
	_, client, r := open(t, onRedis)
	if err := client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	_, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: enginetest.RedisOptions(t, r.URL()), Topic: "usage.events"})
	if err == nil || dragonfly.Classify(err) != dragonfly.Fatal || !strings.Contains(err.Error(), "allkeys-lru") {
		t.Errorf("%v", err)
	}
}

// byHand runs a script as its head says.
func byHand(t *testing.T, r *engine.Redis, script string, args ...string) string {
	t.Helper()
	_, port, _ := strings.Cut(r.Addr(), ":")
	out, err := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-p", port, "--eval", script}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(bytes.Trim(out, "\"\n"))
}

func TestTheScriptRunsByHand(t *testing.T) {
	t.Parallel()
	_, _, r := open(t)
	run := func(script string, args ...string) string { return byHand(t, r, script, args...) }
	key := "quota:{u}:" + today().Format(time.DateOnly)
	expires := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	if got := run("count.lua", key, ",", "a1.0", "65536", "clear", "100", "200", "3", "30", expires, "3", "3", " 3/282s/", "80:3 100:3;0,17,42,"); got != "counted 3 30 80:3:3:a1.0:142 100:3:3:a1.0:142" {
		t.Errorf("the example in count.lua answers %q", got)
	}
	if got := run("clear.lua", key, ",", "80:3:3:a1.0:142"); got != "(integer) 1" && got != "1" {
		t.Errorf("clear.lua answers %q", got)
	}
}

func TestManyUsersAreReadTogetherAndJunkIsTheFaultOfOneOnly(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	count(t, session(t, store, 0), batch(1, 0, 10), call("a", -1, 2), call("c", -1, 3))
	client.Set(t.Context(), dragonfly.QuotaKey("b", today()), "junk", time.Minute)
	counters, wrong, rebuilding, err := store.Read(t.Context(), []string{"a", "b", "c", "d"}, time.Now())
	if err != nil || !rebuilding { // there are no sentinels
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
