package dragonfly_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/dragonfly"
)

// BenchmarkReserve places and releases a hold of a user who has so many others, or is refused one, and reports what one costs Redis, in time and in memory.
func BenchmarkReserve(b *testing.B) {
	for _, others := range []int{0, 1, 10, 100, 1000, 9999} {
		b.Run(fmt.Sprint(others, " others"), func(b *testing.B) { benchmarkReserve(b, others, false) })
	}
	for _, others := range []int{10, 500, 9999} {
		b.Run(fmt.Sprint("refused beside ", others), func(b *testing.B) { benchmarkReserve(b, others, true) })
	}
}

func benchmarkReserve(b *testing.B, others int, refused bool) {
	o := enginetest.RedisOptions(b, enginetest.Counters(b, enginetest.Persist(engine.Forgetful)).URL())
	client := redis.NewClient(o)
	defer client.Close()
	store, err := dragonfly.Open(b.Context(), dragonfly.Config{Options: o, Topic: "usage.events"})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	decision := dragonfly.Granted
	reserve := func(r dragonfly.Reservation) {
		// No process counts here.
		if got, _, err := store.Reserve(b.Context(), r, true); err != nil || got.Decision != decision {
			b.Fatalf("%+v, %v", got, err)
		}
	}
	ask := dragonfly.Reservation{User: "u", Calls: 1, TTL: dragonfly.LongestHold, CallLimit: 1 << 40, PointsLimit: -1}
	for range others {
		ask.ID = uuid.NewString()
		reserve(ask)
	}
	size := client.MemoryUsage(b.Context(), dragonfly.HoldsKey("u", time.Now()), 0).Val()
	if refused {
		decision, ask.CallLimit = dragonfly.Exceeded, int64(others)
	}
	before, n := cpu(b, client), 0
	b.ReportAllocs()
	for b.Loop() {
		ask.ID = fmt.Sprintf("%036d", n)
		reserve(ask)
		if !refused {
			if err := store.Release(b.Context(), "u", ask.ID); err != nil {
				b.Fatal(err)
			}
		}
		n++
	}
	b.ReportMetric((cpu(b, client)-before)*1e6/float64(n), "redis-us/hold")
	b.ReportMetric(float64(size)/float64(max(1, others)), "B/hold")
}
