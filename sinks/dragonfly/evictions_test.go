package dragonfly_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

// An evicting is a server that a test has evict keys, and a store on it with an epoch.
type evicting struct {
	t      *testing.T
	store  *dragonfly.Store
	client *redis.Client
}

func (e evicting) set(name, value string) {
	e.t.Helper()
	if err := e.client.ConfigSet(e.t.Context(), name, value).Err(); err != nil {
		e.t.Fatal(err)
	}
}

// evict makes the server evict other keys than ours, which expire first, under a policy that it already has.
func (e evicting) evict() {
	e.t.Helper()
	e.set("maxmemory", "3mb")
	for i := range 300 {
		if err := e.client.Set(e.t.Context(), fmt.Sprint("other:", i), strings.Repeat("x", 20_000), time.Minute).Err(); err != nil {
			e.t.Fatal(err)
		}
	}
	e.set("maxmemory", "0")
	if err := e.client.Eval(e.t.Context(), "for _, k in ipairs(redis.call('KEYS', 'other:*')) do redis.call('DEL', k) end return 1", nil).Err(); err != nil {
		e.t.Fatal(err)
	}
}

// look looks as a process does that has just been started. It returns the doubt, or that the server is not fit.
func (e evicting) look() string {
	e.t.Helper()
	s := e.store.Session("usage.events", 0)
	defer s.Close()
	state, err := s.Look(e.t.Context())
	var unfit *dragonfly.UnfitError
	switch {
	case errors.As(err, &unfit):
		if dragonfly.Classify(err) != dragonfly.Transient || !strings.Contains(err.Error(), "maxmemory_policy:volatile-ttl") {
			e.t.Errorf("class %v: %v", dragonfly.Classify(err), err)
		}
		return "unfit"
	case err != nil:
		e.t.Fatal(err)
	}
	return state.Doubt
}

// want compares what is found with what is expected, and begins an epoch where there is doubt. Readers have to see it, too.
func (e evicting) want(what, doubt string) {
	e.t.Helper()
	if got := e.look(); got != doubt {
		e.t.Errorf("%s: %q, want %q", what, got, doubt)
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), enginetest.Patience)
	defer cancel()
	busy := func() bool { b, err := e.store.Rebuilding(ctx); return err == nil && b == (doubt != "") }
	if err := enginetest.Eventually(ctx, busy); err != nil {
		e.t.Errorf("%s: readers do not see it", what)
	}
	if doubt == "" || doubt == "unfit" {
		return
	}
	s := e.store.Session("usage.events", 0)
	defer s.Close()
	state, err := s.Look(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	if err := s.Begin(e.t.Context(), state, 0, dragonfly.Epoch{Partitions: 1}); err != nil {
		e.t.Fatal(err)
	}
	if state, err = s.Look(e.t.Context()); err != nil || state.Doubt != "" {
		e.t.Fatalf("%s: in an epoch of its own: %+v, %v", what, state, err)
	}
	if err := s.Note(e.t.Context(), dragonfly.Progress{Epoch: state.Epoch.Number, Offset: 1}); err != nil {
		e.t.Fatal(err)
	}
}

func TestEvictions_ArePutRightByOneEpoch(t *testing.T) {
	t.Parallel()
	store, client, server := open(t, onRedis)
	e := evicting{t, store, client}
	const evicts, keeps = "volatile-ttl", "noeviction"
	e.want("at first", "lost")
	e.want("afterwards", "")

	e.set("maxmemory-policy", evicts)
	e.want("with a policy", "unfit")
	e.set("maxmemory-policy", keeps)
	e.want("after a policy that was seen", "lost")
	e.want("afterwards", "")

	// Between two looks.
	e.set("maxmemory-policy", evicts)
	e.evict()
	e.set("maxmemory-policy", keeps)
	e.want("after a policy between two looks", "evicted")
	e.want("with keys that were evicted before the epoch", "")

	// Statistics that are reset may hide evictions.
	if err := client.ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	e.want("after the statistics were reset", "evicted")
	e.want("afterwards", "")
	e.set("maxmemory-policy", evicts)
	e.evict()
	e.set("maxmemory-policy", keeps)
	e.want("keys that were evicted after the reset", "evicted")

	// A server that was restarted knows nothing of it.
	e.set("maxmemory-policy", evicts)
	e.want("with a policy again", "unfit")
	e.evict()
	if err := errors.Join(server.Kill(), server.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	if doubt := e.look(); doubt != "lost" && doubt != "evicted" {
		t.Errorf("after a policy that was seen, and a restart: %q", doubt)
	}
}

func TestEvictions_OnAServerStartedSinceAreNoticed(t *testing.T) {
	t.Parallel()
	store, client, server := open(t, onRedis)
	e := evicting{t, store, client}
	e.want("at first", "lost")
	if err := errors.Join(server.Kill(), server.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	if doubt := e.look(); doubt != "" {
		t.Errorf("after a restart: %q", doubt)
	}
	e.set("maxmemory-policy", "volatile-ttl")
	e.evict()
	e.set("maxmemory-policy", "noeviction")
	if doubt := e.look(); doubt != "evicted" {
		t.Errorf("keys that were evicted after a restart: %q", doubt)
	}
}
