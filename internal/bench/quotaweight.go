package bench

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/sinks/dragonfly"
)

// A Weight is what counting takes of Redis's memory, by its own account (used_memory). Nothing is kept for an event.
type Weight struct {
	Users      int     `json:"users"`
	Partitions int     `json:"partitions"` // over which the events of each user are spread
	PerCounter float64 `json:"bytes_per_user_and_day"`
}

// weighedUsers are counted for each Weight.
const weighedUsers = 50_000

// quotaMemory counts users' events, and asks Redis what they weigh.
func (w *world) quotaMemory(ctx context.Context) (Measurement, error) {
	m := Measurement{Name: QuotaMemory, Rows: weighedUsers}
	for _, partitions := range []int{1, 4, 16} {
		weight, err := w.weigh(ctx, partitions)
		if err != nil {
			return m, err
		}
		m.Weights = append(m.Weights, weight)
		w.say("%s: %.0f bytes a user and day whose events come from %d partitions", QuotaMemory, weight.PerCounter, partitions)
	}
	return m, w.forget(ctx)
}

func (w *world) weigh(ctx context.Context, partitions int) (Weight, error) {
	weight := Weight{Users: weighedUsers, Partitions: partitions}
	if err := w.forget(ctx); err != nil {
		return weight, err
	}
	// What scripts leave behind in Lua's heap is no part of it.
	if err := w.countEach(ctx, 100, partitions); err != nil {
		return weight, err
	}
	if err := w.forget(ctx); err != nil {
		return weight, err
	}
	empty, err := w.usedMemory(ctx)
	if err != nil {
		return weight, err
	}
	if err := w.countEach(ctx, weighedUsers, partitions); err != nil {
		return weight, err
	}
	full, err := w.usedMemory(ctx)
	weight.PerCounter = float64(full-empty) / weighedUsers
	return weight, err
}

// countEach counts events of each user, as the service does it.
func (w *world) countEach(ctx context.Context, users, partitions int) error {
	options, err := redis.ParseURL(w.redis.URL())
	if err != nil {
		return err
	}
	store, err := dragonfly.Open(ctx, dragonfly.Config{Options: options, Topic: "weighed"})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	day := time.Now().UTC().Truncate(24 * time.Hour)
	for partition := range partitions {
		session := store.Session("weighed", partition)
		defer session.Close()
		if _, err := session.Look(ctx); err != nil {
			return err
		}
		batch := dragonfly.Batch{Epoch: 1 << 14, From: 100_000_000, To: 100_020_000}
		var calls []dragonfly.Call
		for user := range users {
			calls = append(calls, dragonfly.Call{User: "u-" + strconv.FormatInt(int64(user)<<8|0xa000000000, 16), Day: day, Mode: dragonfly.Clear,
				Events: 700, Points: 70_000, Limit: -1})
			if len(calls) == 100 || user == users-1 {
				if _, err := session.Count(ctx, batch, calls, nil); err != nil {
					return err
				}
				calls = calls[:0]
			}
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
