package consumers_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/model"
	"tenantflow/sinks/dragonfly"
)

// configure sets settings of the store while it runs.
func (f *quotaFixture) configure(t testing.TB, settings ...string) {
	t.Helper()
	for i := 0; i < len(settings); i += 2 {
		if err := f.client.ConfigSet(t.Context(), settings[i], settings[i+1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// number is a number that the store says of itself.
func (f *quotaFixture) number(t testing.TB, section, name string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(f.info(t, section, name), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// evict makes the store evict some keys under a policy.
func (f *quotaFixture) evict(t testing.TB, policy string) {
	t.Helper()
	f.configure(t, "maxmemory-policy", policy)
	before := f.number(t, "stats", "evicted_keys")
	enginetest.Await(t, "an eviction", func() bool {
		// Again, as buffers of idle clients may have been freed since the store said what it uses.
		f.configure(t, "maxmemory", strconv.FormatInt(f.number(t, "memory", "used_memory")-20_000, 10))
		f.client.Get(t.Context(), "anything")
		return f.number(t, "stats", "evicted_keys") > before
	})
}

// epochs is how many have begun.
func (f *quotaFixture) epochs(t testing.TB) int64 {
	t.Helper()
	for field, text := range f.client.HGetAll(t.Context(), dragonfly.SentinelKey(5)).Val() {
		if !strings.Contains(field, ".") {
			n, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n >> 12 // the rest is random
		}
	}
	return 0
}

// awaitUnfit waits until readiness says that the store evicts, and readers that counters are rebuilt.
func (f *quotaFixture) awaitUnfit(t testing.TB, tracker *health.Tracker) {
	t.Helper()
	reader, err := dragonfly.Open(t.Context(), dragonfly.Config{Options: redisOptions(t, f.url), Topic: f.Topic})
	if err == nil {
		_ = reader.Close()
		t.Fatal("a service starts on a store that evicts")
	}
	enginetest.Await(t, "readiness to say why counting waits", func() bool {
		r := tracker.Readiness()
		return !r.Ready && strings.Contains(fmt.Sprint(r.Failing), "the server evicts keys (maxmemory_policy:")
	})
}

func TestQuota_EvictionAtRunTimeStopsAndRebuilds(t *testing.T) {
	t.Parallel()
	type running struct {
		*quotaFixture
		start   func()
		stop    func() error
		tracker *health.Tracker
		more    func() // events are published
	}
	right := []string{"maxmemory", "0", "maxmemory-policy", "noeviction"}
	for name, test := range map[string]struct {
		partitions int
		happens    func(t *testing.T, r *running)
	}{
		"while it runs": {4, func(t *testing.T, r *running) {
			r.evict(t, "allkeys-lru")
			r.more()
			r.awaitUnfit(t, r.tracker)
			r.configure(t, right...)
		}},
		"between two looks": {2, func(t *testing.T, r *running) {
			r.evict(t, "volatile-random")
			r.configure(t, right...)
			r.more()
		}},
		"the service is restarted meanwhile": {2, func(t *testing.T, r *running) {
			r.evict(t, "allkeys-random")
			r.more()
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			r.configure(t, right...)
			r.start()
		}},
		"while the service is down": {2, func(t *testing.T, r *running) {
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			r.evict(t, "volatile-lru")
			r.configure(t, right...)
			r.more()
			r.start()
		}},
		"the store is restarted meanwhile": {2, func(t *testing.T, r *running) {
			r.evict(t, "allkeys-lru")
			r.awaitUnfit(t, r.tracker)
			r.more()
			if err := errors.Join(r.redis.Kill(), r.redis.Start(t.Context())); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newQuotaFixture(t, fixtureOptions{partitions: test.partitions}, enginetest.Persist(engine.AppendOnly)) // its policy is set by a command
			messages, want := recent(t, model.Config{Seed: 67, Count: 3000})
			f.know(want, 80)
			r := &running{quotaFixture: f, tracker: health.New(time.Minute, slog.New(slog.DiscardHandler), "quota"),
				more: func() { f.publish(t, messages[2000:]) }}
			r.start = func() { r.stop = f.count(t, quotaConsumer{rows: 100, health: r.tracker}) }
			r.start()
			f.publish(t, messages[:2000])
			f.AwaitConsumed(t)
			began := f.epochs(t)
			test.happens(t, r)
			// The counters may be right before: what was evicted need not be one of them, and is noticed within a second.
			enginetest.Await(t, "an epoch to be begun", func() bool { return f.epochs(t) > began })
			f.check(t, want)
			if n := f.epochs(t) - began; n != 1 {
				t.Errorf("%d epochs were begun, want 1", n)
			}
		})
	}
}
