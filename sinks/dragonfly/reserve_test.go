package dragonfly_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

// holding is a store in which everything is counted, with a clock of its own.
type holding struct {
	*dragonfly.Store
	client  *redis.Client
	session *dragonfly.Session
	epoch   int64
	at      *atomic.Int64 // milliseconds
}

// reservable gives a store that reservations may be made in. Its clock stands at noon of today.
func reservable(t *testing.T) *holding {
	t.Helper()
	store, client, _ := open(t)
	h := &holding{Store: store, client: client, session: session(t, store, 0), at: &atomic.Int64{}}
	h.at.Store(today().Add(12 * time.Hour).UnixMilli())
	store.SetClock(h.now)
	h.epoch = ready(t, h.session)
	return h
}

// ready begins the first epoch and notes that everything is counted.
func ready(t *testing.T, s *dragonfly.Session) int64 {
	t.Helper()
	return readyIn(t, s, dragonfly.Epoch{Partitions: 1})
}

func readyIn(t *testing.T, s *dragonfly.Session, next dragonfly.Epoch) int64 {
	t.Helper()
	doubted, err := s.Look(t.Context())
	if err == nil {
		err = s.Begin(t.Context(), doubted, 0, next)
	}
	if err != nil {
		t.Fatal(err)
	}
	begun, err := s.Look(t.Context())
	if err == nil {
		err = s.Note(t.Context(), dragonfly.Progress{Epoch: begun.Epoch.Number, Record: dragonfly.Record{Offset: -1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return begun.Epoch.Number
}

func (h *holding) now() time.Time { return time.UnixMilli(h.at.Load()).UTC() }

func (h *holding) pass(d time.Duration) { h.at.Add(d.Milliseconds()) }

// asking is a reservation of a user with a limit of ten calls.
func asking(id string, calls int64) dragonfly.Reservation {
	return dragonfly.Reservation{User: "u", ID: id, Calls: calls, TTL: 30 * time.Second, CallLimit: 10, PointsLimit: -1}
}

func (h *holding) reserve(t testing.TB, r dragonfly.Reservation) dragonfly.Reserved {
	t.Helper()
	got, rebuilding, err := h.Reserve(t.Context(), r, false)
	if err != nil || rebuilding {
		t.Fatalf("%+v: rebuilding %t, %v", r, rebuilding, err)
	}
	return got
}

// want compares what became of a reservation.
func want(t testing.TB, what string, got dragonfly.Reserved, decision dragonfly.Decision, counted, held int64) {
	t.Helper()
	if got.Decision != decision || got.Counted.APICalls != counted || got.Held.APICalls != held {
		t.Errorf("%s: got %s with %d counted and %d held, want %s with %d and %d", what, got.Decision, got.Counted.APICalls, got.Held.APICalls, decision, counted, held)
	}
}

func TestReserve_CountedHeldAndAskedStayWithinTheLimit(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	count(t, h.session, batch(h.epoch, 0, 10), call("u", -1, 3))
	want(t, "4 of 10", h.reserve(t, asking("a", 4)), dragonfly.Granted, 3, 4)
	want(t, "4 more", h.reserve(t, asking("b", 4)), dragonfly.Exceeded, 3, 4)
	got := h.reserve(t, asking("c", 3))
	want(t, "3 more", got, dragonfly.Granted, 3, 7)
	if !got.Expires.Equal(h.now().Add(30*time.Second)) || !got.Day.Equal(today()) || !got.First.Equal(got.Expires) {
		t.Errorf("%+v", got)
	}
	over := h.reserve(t, asking("d", 1))
	want(t, "beyond the limit", over, dragonfly.Exceeded, 3, 7)
	if !over.First.Equal(got.Expires) || !over.Expires.IsZero() {
		t.Errorf("%+v", over)
	}
	// Data points have a limit of their own, where there is one.
	points := dragonfly.Reservation{User: "p", ID: "a", Calls: 1, DataPoints: 70, TTL: time.Second, CallLimit: -1, PointsLimit: 100}
	want(t, "70 of 100 data points", h.reserve(t, points), dragonfly.Granted, 0, 1)
	points.ID, points.DataPoints = "b", 31
	want(t, "31 more", h.reserve(t, points), dragonfly.Exceeded, 0, 1)
	points.DataPoints = 30
	if got := h.reserve(t, points); got.Decision != dragonfly.Granted || got.Held.DataPoints != 100 {
		t.Errorf("30 more: %+v", got)
	}
	// Holds are no part of a counter.
	if c, err := h.Counters(t.Context(), "u", today()); err != nil || c.APICalls != 3 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestReserve_OneIDIsOneHold(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	first := h.reserve(t, asking("a", 4))
	h.pass(10 * time.Second)
	again := h.reserve(t, asking("a", 4))
	want(t, "again", again, dragonfly.Held, 0, 4)
	if !again.Expires.Equal(first.Expires) {
		t.Errorf("it ends %s, want %s as before", again.Expires, first.Expires)
	}
	want(t, "with other calls", h.reserve(t, asking("a", 5)), dragonfly.HeldOtherway, 0, 4)
	other := asking("a", 4)
	other.DataPoints = 1
	want(t, "with data points", h.reserve(t, other), dragonfly.HeldOtherway, 0, 4)
	if err := h.Release(t.Context(), "u", "a"); err != nil {
		t.Fatal(err)
	}
	want(t, "after its release", h.reserve(t, asking("a", 5)), dragonfly.Granted, 0, 5)
}

func TestReserve_AHoldEndsByItself(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	h.reserve(t, asking("short", 2))
	long := asking("long", 8)
	long.TTL = 60 * time.Second
	h.reserve(t, long)
	if left := h.client.PTTL(t.Context(), dragonfly.HoldsKey("u", today())).Val(); left <= 59*time.Second || left > 62*time.Second {
		t.Errorf("the key expires in %s, want a minute: the longest hold in it", left)
	}
	h.pass(30*time.Second - time.Millisecond)
	want(t, "before its end", h.reserve(t, asking("x", 1)), dragonfly.Exceeded, 0, 10)
	h.pass(time.Millisecond)
	want(t, "at its end", h.reserve(t, asking("x", 1)), dragonfly.Granted, 0, 9)
	h.pass(30 * time.Second)
	want(t, "after all have ended", h.reserve(t, asking("y", 10)), dragonfly.Granted, 0, 10)
	if n := h.client.HLen(t.Context(), dragonfly.HoldsKey("u", today())).Val(); n != 2 {
		t.Errorf("%d fields are left, want one hold and the sum", n)
	}
}

// A refusal says when the next hold ends, also where the one that was to end first is gone.
func TestReserve_ARefusalKnowsTheFirstEnd(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	h.reserve(t, asking("first", 2))
	later := asking("later", 8)
	later.TTL = 200 * time.Second
	ends := h.reserve(t, later).Expires
	if err := h.Release(t.Context(), "u", "first"); err != nil {
		t.Fatal(err)
	}
	if got := h.reserve(t, asking("x", 5)); got.Decision != dragonfly.Exceeded || !got.First.Equal(ends) {
		t.Errorf("got %s, first end %s, want %s", got.Decision, got.First, ends)
	}
}

// A refusal costs the same however many holds there are: with more than a few, the first end that it says may be one that was released.
func TestReserve_ARefusalDoesNotLookAtManyHolds(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	first := h.reserve(t, asking("first", 1)).Expires
	for i := range 40 {
		later := asking(fmt.Sprint("later", i), 1)
		later.TTL, later.CallLimit = 200*time.Second, 100
		h.reserve(t, later)
	}
	if err := h.Release(t.Context(), "u", "first"); err != nil {
		t.Fatal(err)
	}
	if got := h.reserve(t, asking("x", 1)); got.Decision != dragonfly.Exceeded || got.Held.APICalls != 40 || !got.First.Equal(first) {
		t.Errorf("got %s with %d held, first end %s, want %s", got.Decision, got.Held.APICalls, got.First, first)
	}
	h.pass(30 * time.Second) // the end that was said
	if got := h.reserve(t, asking("x", 1)); got.Decision != dragonfly.Exceeded || !got.First.Equal(first.Add(170*time.Second)) {
		t.Errorf("then: got %s, first end %s, want %s", got.Decision, got.First, first.Add(170*time.Second))
	}
}

func TestReserve_AClockSetBackForgetsHoldsOfLater(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	long := asking("a", 4)
	long.TTL = dragonfly.LongestHold
	h.reserve(t, long)
	long.ID = "b"
	h.reserve(t, long)
	h.pass(-5 * time.Minute)
	want(t, "set back a little", h.reserve(t, asking("x", 4)), dragonfly.Exceeded, 0, 8)
	h.pass(-time.Hour)
	want(t, "set back an hour", h.reserve(t, asking("x", 4)), dragonfly.Granted, 0, 4)
	h.pass(-time.Hour)
	long.ID, long.Calls = "x", 10 // the hold of that name is none any more
	want(t, "another hour", h.reserve(t, long), dragonfly.Granted, 0, 10)
}

func TestReserve_ManyAtOnceNeverPassTheLimit(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := session(t, store, 0)
	epoch := ready(t, s)
	count(t, s, batch(epoch, 0, 100), call("u", -1, 40))
	var granted atomic.Int64
	var callers sync.WaitGroup
	for caller := range 64 {
		callers.Go(func() {
			for n := range 5 {
				r := asking(fmt.Sprintf("%d-%d", caller, n), 1)
				r.CallLimit, r.TTL = 100, 300*time.Second
				got, _, err := store.Reserve(t.Context(), r, false)
				if err != nil {
					t.Error(err)
				} else if got.Decision == dragonfly.Granted {
					granted.Add(1)
				}
			}
		})
	}
	callers.Wait()
	if granted.Load() != 60 {
		t.Errorf("%d were granted beside 40 counted of 100", granted.Load())
	}
	everyKeyExpires(t, client)
}

func everyKeyExpires(t testing.TB, client *redis.Client) {
	t.Helper()
	for _, key := range client.Keys(t.Context(), "*").Val() {
		if client.TTL(t.Context(), key).Val() < 0 {
			t.Errorf("%s never expires", key)
		}
	}
}

// The process may be on the other side of midnight than the store.
func TestReserve_TheStoresClockSaysWhichDayItIs(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	ready(t, session(t, store, 0))
	for _, off := range []time.Duration{-24 * time.Hour, 0, 24 * time.Hour} {
		store.SetGuess(func() time.Time { return time.Now().Add(off) })
		got, _, err := store.Reserve(t.Context(), asking("a", 4), false)
		if err != nil || got.Held.APICalls != 4 || got.Now.UTC().Truncate(24*time.Hour) != got.Day {
			t.Errorf("%s off: %+v, %v", off, got, err)
		}
	}
	if n := len(client.Keys(t.Context(), "quota_holds:*").Val()); n > 2 { // two where midnight has passed
		t.Errorf("%d days have holds", n)
	}
}

func TestReserve_AtMidnightADayBegins(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	h.at.Store(today().Add(24*time.Hour - time.Second).UnixMilli())
	want(t, "before midnight", h.reserve(t, asking("a", 10)), dragonfly.Granted, 0, 10)
	h.pass(2 * time.Second)
	got := h.reserve(t, asking("b", 10))
	want(t, "after midnight", got, dragonfly.Granted, 0, 10)
	if !got.Day.Equal(today().AddDate(0, 0, 1)) {
		t.Errorf("it is held on %s", got.Day)
	}
	for _, id := range []string{"a", "b"} {
		if err := h.Release(t.Context(), "u", id); err != nil {
			t.Fatal(err)
		}
	}
	if keys := h.client.Keys(t.Context(), "quota_holds:*").Val(); len(keys) != 0 {
		t.Errorf("%v are left", keys)
	}
}

func TestCount_TheHoldsItsEventsNameEnd(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	naming := func(n int, holds ...string) dragonfly.Call {
		c := call("u", 10, n)
		c.Holds = holds
		return c
	}
	for _, id := range []string{"a", "b", "c", "d"} {
		h.reserve(t, asking(id, 2))
	}
	count(t, h.session, batch(h.epoch, 0, 10), naming(2, "a", "gone"))
	want(t, "a is counted", h.reserve(t, asking("d", 2)), dragonfly.Held, 2, 6)
	// The same batch again: it ends nothing that was reserved since.
	h.reserve(t, asking("a", 2))
	count(t, h.session, batch(h.epoch, 0, 10), naming(2, "a", "gone"))
	want(t, "counted before", h.reserve(t, asking("d", 2)), dragonfly.Held, 2, 8)
	// More than Lua takes arguments, and with the thresholds and offsets that a call is made again for.
	many := naming(8, "a", "b", "c", "d")
	for i := range 2500 {
		many.Holds = append(many.Holds, fmt.Sprint("x", i))
	}
	if due := count(t, h.session, batch(h.epoch, 10, 20), many)[0].Due; len(due) != 2 {
		t.Errorf("due: %+v", due)
	}
	if n := h.client.Exists(t.Context(), dragonfly.HoldsKey("u", today())).Val(); n != 0 {
		t.Error("holds are left")
	}
	want(t, "all are counted", h.reserve(t, asking("e", 1)), dragonfly.Exceeded, 10, 0)
}

// Dragonfly takes 2^16 words of a command, and a long script holds up all others.
func TestCount_ThousandsOfHoldsEndInShortCommands(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	const many = 2500
	c := call("u", 1<<40, many)
	for i := range many {
		ask := asking(fmt.Sprint("x", i), 1)
		ask.CallLimit = many
		h.reserve(t, ask)
		c.Holds = append(c.Holds, ask.ID)
	}
	for setting, value := range map[string]string{"slowlog-max-len": "1000", "slowlog-log-slower-than": "0"} {
		if err := h.client.ConfigSet(t.Context(), setting, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	count(t, h.session, batch(h.epoch, 0, many), c)
	if err := h.client.ConfigSet(t.Context(), "slowlog-log-slower-than", "-1").Err(); err != nil {
		t.Fatal(err)
	}
	if n := h.client.HLen(t.Context(), dragonfly.HoldsKey("u", today())).Val(); n != 0 {
		t.Errorf("%d fields of holds are left", n)
	}
	seen := 0
	for _, slow := range h.client.SlowLogGet(t.Context(), 1000).Val() {
		words := len(slow.Args)
		if left := 0; strings.HasSuffix(slow.Args[words-1], " more arguments)") {
			if _, err := fmt.Sscanf(slow.Args[words-1], "... (%d more arguments)", &left); err != nil {
				t.Fatal(err)
			}
			words += left - 1
		}
		if words > 1100 {
			t.Errorf("%s has %d words", slow.Args[0], words)
		}
		if strings.EqualFold(slow.Args[0], "evalsha") || strings.EqualFold(slow.Args[0], "eval") {
			seen++
		}
	}
	if seen < 3 { // one that counts, two that end the rest
		t.Errorf("%d scripts are in the log of commands", seen)
	}
}

// All holds are kept in one step with the counter, whatever comes in which order.
func TestReserve_HoldsAreTheModels(t *testing.T) {
	t.Parallel()
	h := reservable(t)
	type hold struct {
		ends          time.Time
		calls, points int64
	}
	user, offset := 0, int64(0)
	rapid.Check(t, func(r *rapid.T) {
		user++
		h.at.Store(today().Add(6 * time.Hour).UnixMilli())
		name, model, counted := fmt.Sprint("m", user), map[string]hold{}, int64(0)
		limit := rapid.Int64Range(1, 12).Draw(r, "limit")
		ids := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"})
		r.Repeat(map[string]func(*rapid.T){
			"time passes": func(r *rapid.T) { h.pass(time.Duration(rapid.IntRange(1, 200_000).Draw(r, "ms")) * time.Millisecond) },
			"reserve": func(r *rapid.T) {
				ask := dragonfly.Reservation{User: name, ID: ids.Draw(r, "id"), Calls: rapid.Int64Range(1, 4).Draw(r, "calls"), DataPoints: rapid.Int64Range(0, 1).Draw(r, "points"),
					TTL: time.Duration(rapid.IntRange(100, 300).Draw(r, "ttl")) * time.Second, CallLimit: limit, PointsLimit: -1}
				held := int64(0)
				for id, m := range model {
					if !m.ends.After(h.now()) {
						delete(model, id)
					} else {
						held += m.calls
					}
				}
				decision, before := dragonfly.Granted, model[ask.ID]
				switch {
				case before.calls == ask.Calls && before.points == ask.DataPoints:
					decision = dragonfly.Held
				case before.calls > 0:
					decision = dragonfly.HeldOtherway
				case counted+held+ask.Calls > limit:
					decision = dragonfly.Exceeded
				default:
					model[ask.ID] = hold{h.now().Add(ask.TTL), ask.Calls, ask.DataPoints}
					held += ask.Calls
				}
				want(t, fmt.Sprintf("%+v", ask), h.reserve(t, ask), decision, counted, held)
			},
			"release": func(r *rapid.T) {
				id := ids.Draw(r, "id")
				delete(model, id)
				if err := h.Release(t.Context(), name, id); err != nil {
					r.Fatal(err)
				}
			},
			"count": func(r *rapid.T) {
				c := call(name, -1, rapid.IntRange(1, 2).Draw(r, "events"))
				for _, id := range rapid.SliceOfNDistinct(ids, 0, 2, rapid.ID).Draw(r, "ids") {
					c.Holds = append(c.Holds, id)
					delete(model, id)
				}
				count(t, h.session, batch(h.epoch, offset, offset+10), c)
				offset, counted = offset+10, counted+int64(c.Events)
			},
			"": func(r *rapid.T) {
				if t.Failed() {
					r.Fatal("it failed")
				}
			},
		})
	})
	everyKeyExpires(t, h.client)
}

func TestReserve_RunsByHand(t *testing.T) {
	t.Parallel()
	_, _, r := open(t)
	client := redis.NewClient(enginetest.RedisOptions(t, r.URL()))
	t.Cleanup(func() { _ = client.Close() })
	got := byHand(t, r, "reserve.lua", "quota:{u}:2026-11-23", "quota_holds:{u}:2026-11-23", ",", "r-1", "1", "0", "30000", "1000", "", "1795392000", "10000", "1795392000000")
	if !strings.HasPrefix(got, "granted 1795392000000 1795392030000 0 0 1 0 ") {
		t.Errorf("the example in reserve.lua answers %q", got)
	}
	if got := byHand(t, r, "release.lua", "quota_holds:{u}:2026-11-23", ",", "r-1"); got != "(integer) 1" && got != "1" {
		t.Errorf("release.lua answers %q", got)
	}
}
