package dragonfly_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

// BenchmarkCount makes calls for 10,000 users with a limit, in pieces of 32, and reports what they cost Redis. How many events a
// call has depends on the traffic: with 20,000 a batch and a Zipf distribution some 16.
func BenchmarkCount(b *testing.B) {
	for _, c := range []struct {
		name   string
		limit  int64
		events int
	}{{"below thresholds", 50_000, 16}, {"beyond thresholds", 1, 16}, {"few events", 50_000, 3}, {"few events beyond", 1, 3}} {
		b.Run(c.name, func(b *testing.B) {
			benchmarkCount(b, c.events, func(user string) dragonfly.Call { return call(user, c.limit, c.events) })
		})
	}
	var percents []int
	for percent := 50; len(percents) < tier.MaxThresholds; percent += 10 {
		percents = append(percents, percent)
	}
	long := dragonfly.NewThresholds(percents)
	for _, c := range []struct {
		name   string
		limit  int64
		events int
	}{{"long list, below", 50_000, 16}, {"long list, beyond", 1, 16}, {"long list, few events", 50_000, 3}, {"long list, few events beyond", 1, 3}} {
		b.Run(c.name, func(b *testing.B) {
			benchmarkCount(b, c.events, func(user string) dragonfly.Call {
				one := call(user, c.limit, c.events)
				one.Thresholds = long
				return one
			})
		})
	}
}

// benchmarkCount makes calls of so many events for 10,000 users.
func benchmarkCount(b *testing.B, events int, of func(user string) dragonfly.Call) {
	r := enginetest.Counters(b, enginetest.Persist(engine.Forgetful))
	o, err := redis.ParseURL(r.URL())
	if err != nil {
		b.Fatal(err)
	}
	client := redis.NewClient(o)
	defer client.Close()
	store, err := dragonfly.Open(b.Context(), dragonfly.Config{Options: o, Topic: "usage.events"})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	s := store.Session("usage.events", 0)
	defer s.Close()
	if _, err := s.Look(b.Context()); err != nil {
		b.Fatal(err)
	}
	const users, piece = 10_000, 32
	calls := make([]dragonfly.Call, users)
	for i := range calls {
		calls[i] = of("u-" + strconv.Itoa(i))
	}
	n := int64(0)
	var counted []dragonfly.Counted
	count := func() []dragonfly.Counted {
		at := int(n*piece) % users
		all := calls[at:min(at+piece, users)]
		round := batch(5<<12, 100_000_000+n*users, 100_000_000+(n+1)*users)
		for i := range all {
			all[i].Offsets = all[i].Offsets[:0]
			for k := range int64(events) {
				all[i].Offsets = append(all[i].Offsets, round.From+k*17)
			}
		}
		if counted, err = s.Count(b.Context(), round, all, counted[:0]); err != nil {
			b.Fatal(err)
		}
		n++
		return counted
	}
	for n*piece < users { // all users are there, and what their first calls have made due is published
		for _, c := range count() {
			if err := s.Clear(b.Context(), c.Due); err != nil {
				b.Fatal(err)
			}
		}
	}
	before, first := cpu(b, client), n
	b.ReportAllocs()
	for b.Loop() {
		count()
	}
	b.ReportMetric((cpu(b, client)-before)*1e6/float64((n-first)*piece), "redis-us/call")
	b.ReportMetric(float64(client.MemoryUsage(b.Context(), dragonfly.QuotaKey("u-1", today())).Val()), "B/counter")
}

// cpu is the processor time that Redis has used, in seconds.
func cpu(b *testing.B, client *redis.Client) float64 {
	b.Helper()
	text, err := client.Info(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	sum := 0.0
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += seconds
		}
	}
	return sum
}
