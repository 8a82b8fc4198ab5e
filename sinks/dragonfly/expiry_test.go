package dragonfly_test

import (
	"testing"
	"time"

	"tenantflow/sinks/dragonfly"
)

// A server that runs out of memory within a script, and dies, may have written the counter and not its expiry. The member that made the call is
// gone, too. The next owner reads the same events, because no progress covers them, and its call sets the expiry.
func TestCount_AHalfAppliedCallGetsItsExpiry(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := session(t, store, 0)
	key := dragonfly.QuotaKey("u", today())
	first := func() {
		t.Helper()
		client.Del(t.Context(), key)
		count(t, s, batch(1, 0, 10), call("u", -1, 2))
		if !client.Persist(t.Context(), key).Val() {
			t.Fatal("the call has set no expiry")
		}
	}
	inMode := func(m dragonfly.Mode) dragonfly.Call {
		c := call("u", -1, 2)
		c.Mode = m
		return c
	}
	for name, next := range map[string]func(){
		"the same batch":      func() { count(t, s, batch(1, 0, 10), call("u", -1, 2)) },
		"a shorter one":       func() { count(t, s, batch(1, 0, 6), call("u", -1, 1)) },
		"a longer one":        func() { count(t, s, batch(1, 0, 20), call("u", -1, 3)) },
		"a later epoch":       func() { count(t, s, batch(2, 0, 20), inMode(dragonfly.Clear)) },
		"one that keeps":      func() { count(t, s, batch(2, 10, 20), inMode(dragonfly.Keep)) },
		"one that adopts":     func() { count(t, s, batch(2, 10, 20), inMode(dragonfly.Adopt)) },
		"another partition":   func() { count(t, session(t, store, 1), batch(1, 0, 20), call("u", -1, 3)) },
		"another incarnation": func() { count(t, s, dragonfly.Batch{Epoch: 1, Incarnation: 1, To: 9}, call("u", -1, 3)) },
	} {
		first()
		next()
		if left := client.TTL(t.Context(), key).Val(); left < 47*time.Hour || left > 73*time.Hour {
			t.Errorf("%s: the counter expires in %s", name, left)
		}
	}
}
