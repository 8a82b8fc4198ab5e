package replay_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
	"tenantflow/internal/task"
	"tenantflow/internal/totals"
)

// BenchmarkReplay_AllThere replays a topic of REPLAY_EVENTS events (default: 500,000) whose rows are all there, so that nothing is
// published. It reports events a second:
//
//	REPLAY_EVENTS=2000000 go test ./internal/replay -run '^$' -bench AllThere -benchtime 1x
func BenchmarkReplay_AllThere(b *testing.B) {
	count := enginetest.Number(b, "REPLAY_EVENTS", 500_000)
	w := newWorld(b, 8)
	w.shipped = true
	g := generator(b, model.Config{Seed: 11, Count: count})
	w.publish(b, g, count)
	stop := w.consume(b, nil)
	w.awaitConsumed(b)
	stop()
	s := w.station(b)
	read := int64(0)
	for b.Loop() {
		t := s.run(b, s.create(b, everything()).ID)
		if t.State != task.Done || t.Counts["already_there"] != g.Expected().Messages {
			b.Fatalf("%s %s: %v, want %d already there", t.State, t.Message, t.Counts, g.Expected().Messages)
		}
		read += t.Counts["already_there"]
	}
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkReplay_LiveLag publishes REPLAY_EVENTS missing events (default: 200,000) beside live traffic at half of what was
// published and consumed at once before, and reports how long live records wait until their offset is committed:
//
//	REPLAY_EVENTS=1000000 go test ./internal/replay -run '^$' -bench LiveLag -benchtime 1x -timeout 30m
func BenchmarkReplay_LiveLag(b *testing.B) {
	count := enginetest.Number(b, "REPLAY_EVENTS", 200_000)
	w := newWorld(b, 8)
	w.shipped = true
	stop := w.consume(b, nil)
	w.publish(b, generator(b, model.Config{Seed: 20, Count: 1000}), 0) // the group has its partitions
	w.awaitConsumed(b)
	began := time.Now()
	w.publish(b, generator(b, model.Config{Seed: 21, Count: count}), 0)
	w.awaitConsumed(b)
	capacity := float64(count) / time.Since(began).Seconds()
	stop()
	for _, table := range []string{"usage_tracking", "usage_hourly_store", "usage_daily_store", "billing_monthly_store"} {
		if err := w.db.Exec(b.Context(), "TRUNCATE TABLE "+table); err != nil {
			b.Fatal(err)
		}
	}
	w.consume(b, nil)
	r := everything()
	r.MaxLag = 2 * time.Second
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		lags := w.watchLag(b, ctx)
		var publishing sync.WaitGroup
		publishing.Go(func() {
			live := generator(b, model.Config{Seed: 22, Count: 1 << 30})
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for from, sent := time.Now(), 0; ; {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if due := int(capacity/2*time.Since(from).Seconds()) - sent; due > 0 {
					w.publish(b, live, due)
					sent += due
				}
			}
		})
		s := w.station(b)
		made := s.create(b, r)
		began := time.Now()
		t := s.runWithin(b, made.ID, time.Hour)
		took := time.Since(began)
		cancel()
		publishing.Wait()
		all := lags()
		if t.State != task.Done || t.Counts["published"] < int64(count) {
			b.Fatalf("%s %s: %v, want %d published", t.State, t.Message, t.Counts, count)
		}
		b.ReportMetric(capacity, "capacity/s")
		b.ReportMetric(float64(count)/took.Seconds(), "published/s")
		b.ReportMetric(all[len(all)/2].Seconds(), "p50-s")
		b.ReportMetric(all[len(all)*99/100].Seconds(), "p99-s")
		b.ReportMetric(all[len(all)-1].Seconds(), "longest-s")
	}
}

// watchLag notes now and then where the topic ends, and looks when the group has committed that. The function it returns ends it, when ctx
// has ended, and returns how long each took, sorted.
func (w *world) watchLag(t testing.TB, ctx context.Context) (ended func() []time.Duration) {
	type note struct {
		at   time.Time
		ends map[int]kafka.Range
	}
	done := make(chan []time.Duration, 1)
	go func() {
		var lags []time.Duration
		defer func() { done <- lags }()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for open := []note(nil); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			at := time.Now()
			ends, err := kafka.Ends(t.Context(), w.client, w.topic())
			if err != nil {
				t.Error(err)
				return
			}
			open = append(open, note{at, ends})
			positions, _, err := totals.ReadPositions(t.Context(), w.client, w.group(), w.topic())
			if err != nil {
				t.Error(err)
				return
			}
			now := time.Now()
			open = slices.DeleteFunc(open, func(n note) bool {
				for _, p := range positions {
					if p.Committed < n.ends[p.Partition].To {
						return false
					}
				}
				lags = append(lags, now.Sub(n.at))
				return true
			})
		}
	}()
	return func() []time.Duration {
		lags := <-done
		slices.Sort(lags)
		return lags
	}
}
