package dragonfly_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

// Its process stands still: connections are made and stay open, and nothing is answered.
func TestStore_AFrozenServerIsNamedWithTheTimeItWasGiven(t *testing.T) {
	t.Parallel()
	server := enginetest.Redis(t)
	o, err := redis.ParseURL(server.URL() + "?read_timeout=1200ms&max_retries=-1&pool_timeout=200ms&pool_size=1")
	if err != nil {
		t.Fatal(err)
	}
	// A server that is busy may need several tries, before it is frozen at all.
	var store *dragonfly.Store
	enginetest.Await(t, "the store to be opened", func() bool {
		store, err = dragonfly.Open(t.Context(), dragonfly.Config{Options: o, Topic: "usage.events"})
		return err == nil
	})
	t.Cleanup(func() { _ = store.Close() })
	var session *dragonfly.Session
	enginetest.Await(t, "a session to look", func() bool {
		session = store.Session("usage.events", 0)
		if _, err := session.Look(t.Context()); err != nil {
			session.Close()
			return false
		}
		return true
	})
	t.Cleanup(session.Close)
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	// How long it waited is what it says, and on a busy machine that is longer than the time it was given.
	said := func(what string, least time.Duration, err error) {
		t.Helper()
		if err == nil || dragonfly.Classify(err) != dragonfly.Transient {
			t.Fatalf("%s: %v", what, err)
		}
		_, words, _ := strings.Cut(err.Error(), "no answer within ")
		waited, where, _ := strings.Cut(words, " from Dragonfly at ")
		if d, wrong := time.ParseDuration(waited); wrong != nil || d < least || !strings.HasPrefix(where, server.Addr()) {
			t.Errorf("%s: %q, want that nothing came from %s within %s", what, err, server.Addr(), least)
		}
	}
	_, err = session.Look(t.Context())
	said("a session", time.Second, err)
	_, err = store.Memory(t.Context())
	said("a question", time.Second, err)
	limited, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = store.Counters(limited, "u", time.Now())
	said("a question that has less time", 300*time.Millisecond, err)
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	enginetest.Await(t, "the server to answer again", func() bool {
		_, err := store.Memory(t.Context())
		return err == nil
	})
}
