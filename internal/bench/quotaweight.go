package bench

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/sinks/dragonfly"
)

// A Weight is what counting takes of Redis's memory, by its own account (used_memory).
type Weight struct {
	Users        int     `json:"users"`
	EventsOfEach int     `json:"events_of_each"` // within one bucket of identities
	PerEvent     float64 `json:"bytes_per_event"`
	PerCounter   float64 `json:"bytes_per_user_and_day"` // when the identities have expired
}

// weighedEvents are counted for each Weight.
const weighedEvents = 1_000_000

// quotaMemory counts events of few and of many users, and asks Redis what they weigh. What a user takes beside his events,
// the hash of counters and the key and the table of a set, is shared by few events or by many.
func (w *world) quotaMemory(ctx context.Context) (Measurement, error) {
	m := Measurement{Name: QuotaMemory, Rows: weighedEvents}
	for _, each := range []int{4, 100, 1000} {
		weight, err := w.weigh(ctx, weighedEvents/each, each)
		if err != nil {
			return m, err
		}
		m.Weights = append(m.Weights, weight)
		w.say("%s: %d events of each of %d users: %.1f bytes an event, %.0f bytes a user when the identities are gone", QuotaMemory, each, weight.Users, weight.PerEvent, weight.PerCounter)
	}
	return m, w.forget(ctx)
}

func (w *world) weigh(ctx context.Context, users, each int) (Weight, error) {
	weight := Weight{Users: users, EventsOfEach: each}
	if err := w.forget(ctx); err != nil {
		return weight, err
	}
	// What scripts leave behind in Lua's heap is nobody's.
	if err := w.countEach(ctx, 100, each); err != nil {
		return weight, err
	}
	if err := w.forget(ctx); err != nil {
		return weight, err
	}
	empty, err := w.usedMemory(ctx)
	if err != nil {
		return weight, err
	}
	if err := w.countEach(ctx, users, each); err != nil {
		return weight, err
	}
	full, err := w.usedMemory(ctx)
	if err != nil {
		return weight, err
	}
	for keys := w.counts.Scan(ctx, 0, "quota_seen:*", 1000).Iterator(); ; {
		if !keys.Next(ctx) {
			if err := keys.Err(); err != nil {
				return weight, fmt.Errorf("look for identities: %w", err)
			}
			break
		}
		if err := w.counts.Del(ctx, keys.Val()).Err(); err != nil {
			return weight, fmt.Errorf("delete identities: %w", err)
		}
	}
	left, err := w.usedMemory(ctx)
	weight.PerEvent = float64(full-empty) / float64(users*each)
	weight.PerCounter = float64(left-empty) / float64(users)
	return weight, err
}

// countEach counts the same number of events of each user, as the service does it.
func (w *world) countEach(ctx context.Context, users, each int) error {
	options, err := redis.ParseURL(w.redis.URL())
	if err != nil {
		return err
	}
	store, err := dragonfly.Open(ctx, dragonfly.Config{Options: options, Topic: "weighed"})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	session := store.Session("weighed", 0)
	defer session.Close()

	now := time.Now().UTC()
	day, bucket := now.Truncate(24*time.Hour), now.UnixMilli()/session.Bucket().Milliseconds()
	identity := uint64(0)
	calls := make([]dragonfly.Call, 0, 100)
	for user := range users {
		for from := 0; from < each; from += dragonfly.MaxEvents {
			n := min(dragonfly.MaxEvents, each-from)
			call := dragonfly.Call{User: "u-" + strconv.FormatInt(int64(user)<<8|0xa000000000, 16), Day: day, Bucket: bucket, Limit: 50_000,
				Identities: make([]uint64, n), Points: make([]uint32, n), Offsets: make([]int64, n)}
			for i := range n {
				identity += 0x9e3779b97f4a7c15 // odd, so no two are alike
				call.Identities[i], call.Points[i] = identity, 100
			}
			calls = append(calls, call)
		}
		if len(calls)+2 >= cap(calls) || user == users-1 {
			if _, err := session.Count(ctx, now.UnixMilli(), calls); err != nil {
				return err
			}
			calls = calls[:0]
		}
	}
	return nil
}

// usedMemory is what Redis uses, as soon as it has given back what it does not need any more: its tables shrink by and by.
func (w *world) usedMemory(ctx context.Context) (int, error) {
	last, same := 0, 0
	err := w.await(ctx, "the memory of Redis to stay the same", time.Minute, 100*time.Millisecond, func() (bool, error) {
		n, err := strconv.Atoi(w.info(ctx, "memory", "used_memory"))
		if err != nil {
			return false, fmt.Errorf("ask Redis about its memory: %w", err)
		}
		const little = 64 << 10
		if max(n-last, last-n) > little {
			same = 0
		} else {
			same++
		}
		last = n
		return same >= 10, nil
	})
	return last, err
}
