package dragonfly_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

func TestEvictions_AreToldOnceThePolicyIsRight(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: enginetest.Redis(t).Addr()})
	defer client.Close()
	conn := client.Conn()
	defer conn.Close()
	set := func(name, value string) {
		t.Helper()
		if err := client.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	evict := func() {
		t.Helper()
		set("maxmemory", "3mb")
		for i := range 300 {
			if err := client.Set(t.Context(), fmt.Sprint("quota:", i), strings.Repeat("x", 20_000), 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		set("maxmemory", "0")
	}
	var w dragonfly.EvictionWatch
	look := func(what string, fatal, evicted bool) {
		t.Helper()
		err := w.Look(t.Context(), conn)
		var config *dragonfly.ConfigError
		if errors.As(err, &config) != fatal || errors.Is(err, dragonfly.ErrEvicted) != evicted || (err != nil) != (fatal || evicted) {
			t.Errorf("%s: %v", what, err)
		}
		if fatal && (dragonfly.Classify(err) != dragonfly.Fatal || !strings.Contains(err.Error(), "maxmemory_policy:allkeys-lru")) {
			t.Errorf("%s: class %v: %v", what, dragonfly.Classify(err), err)
		}
	}
	look("at first", false, false)
	set("maxmemory-policy", "allkeys-lru")
	look("with a policy", true, false)
	evict()
	look("while it evicts", true, false)
	look("while it may evict", true, false)
	set("maxmemory-policy", "noeviction")
	known := w.Seen.Evicted // as it would be kept by who dies here
	look("when it is right again", false, true)
	look("afterwards", false, false)
	// A policy that nobody saw.
	set("maxmemory-policy", "allkeys-lru")
	evict()
	set("maxmemory-policy", "noeviction")
	look("after a policy between two looks", false, true)
	look("afterwards", false, false)

	next := dragonfly.WatchEvictions(known)
	if err := next.Look(t.Context(), conn); !errors.Is(err, dragonfly.ErrEvicted) {
		t.Errorf("another process, told what was known before: %v", err)
	}
	same := dragonfly.WatchEvictions(next.Seen.Evicted)
	if err := same.Look(t.Context(), conn); err != nil {
		t.Errorf("another process, told what is known now: %v", err)
	}
	if err := client.Do(t.Context(), "config", "resetstat").Err(); err != nil {
		t.Fatal(err)
	}
	look("after the statistics were reset", false, false)
	client.Close()
	if err := w.Look(t.Context(), client); err == nil || errors.Is(err, dragonfly.ErrEvicted) {
		t.Errorf("without an answer: %v", err)
	}
}
