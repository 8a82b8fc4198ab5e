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
	store, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: o, Topic: "usage.events"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	session := store.Session("usage.events", 0)
	t.Cleanup(session.Close)
	if _, err := session.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	said := func(what, within string, err error) {
		t.Helper()
		if err == nil || dragonfly.Classify(err) != dragonfly.Transient {
			t.Fatalf("%s: %v", what, err)
		}
		if want := "no answer within " + within + " from Dragonfly at " + server.Addr(); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, want %q", what, err, want)
		}
	}
	_, err = session.Look(t.Context())
	said("a session", "1s", err)
	_, err = store.Memory(t.Context())
	said("a question", "1s", err)
	limited, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = store.Counters(limited, "u", time.Now())
	said("a question that has less time", "300ms", err)
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	answered := enginetest.Eventually(t.Context(), func() bool {
		_, err := store.Memory(t.Context())
		return err == nil
	})
	if answered != nil {
		t.Fatal(answered)
	}
}
