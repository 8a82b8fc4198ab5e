package replay_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
	g := generator(b, model.Config{Seed: 11, Count: count, Step: 5 * time.Hour / time.Duration(count)}) // none of the future
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
// published and consumed at once before. It reports the age of the oldest record without effect, as the metric
// tenantflow_partition_lag_seconds has it, seen every 20 ms, and how long it takes until the offset of a record is committed, each also for
// a minute of the live traffic alone:
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
	w.publish(b, generator(b, model.Config{Seed: 21, Count: count, Step: 5 * time.Hour / time.Duration(count)}), 0)
	w.awaitConsumed(b)
	capacity := float64(count) / time.Since(began).Seconds()
	stop()
	for _, table := range []string{"usage_tracking", "usage_hourly_store", "usage_daily_store", "billing_monthly_store"} {
		if err := w.db.Exec(b.Context(), "TRUNCATE TABLE "+table); err != nil {
			b.Fatal(err)
		}
	}
	w.registry = prometheus.NewRegistry()
	w.consume(b, nil)
	r := everything()
	r.MaxLag = 2 * time.Second
	// Live is what happens now: events that are older than most would each be looked up, as late ones are.
	live := generator(b, model.Config{Seed: 22, Count: 1 << 30, Start: time.Now(), Step: time.Duration(2 / capacity * float64(time.Second))})
	for b.Loop() {
		alone := w.beside(b, live, capacity/2, func() {
			select {
			case <-b.Context().Done():
			case <-time.After(time.Minute):
			}
		})
		s := w.station(b)
		made := s.create(b, r)
		var t *task.Task
		began := time.Now()
		beside := w.beside(b, live, capacity/2, func() { t = s.runWithin(b, made.ID, time.Hour) })
		took := time.Since(began)
		if t.State != task.Done || t.Counts["published"] < int64(count) {
			b.Fatalf("%s %s: %v, want %d published", t.State, t.Message, t.Counts, count)
		}
		b.ReportMetric(capacity, "capacity/s")
		b.ReportMetric(float64(count)/took.Seconds(), "published/s")
		for unit, all := range map[string][]time.Duration{
			"alone-lag": alone.ages, "lag": beside.ages, "alone-commit": alone.commits, "commit": beside.commits,
		} {
			b.ReportMetric(all[len(all)/2].Seconds(), unit+"-p50-s")
			b.ReportMetric(all[len(all)*99/100].Seconds(), unit+"-p99-s")
			b.ReportMetric(all[len(all)-1].Seconds(), unit+"-max-s")
		}
	}
}

// lags are what was seen beside live traffic, each sorted.
type lags struct{ ages, commits []time.Duration }

// beside does something while live traffic comes at a rate, in events a second.
func (w *world) beside(b *testing.B, live *model.Generator, rate float64, do func()) (l lags) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	commits, ages := w.watchCommits(b, ctx), w.watchAge(b, ctx)
	var publishing sync.WaitGroup
	publishing.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for from, sent := time.Now(), 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if due := int(rate*time.Since(from).Seconds()) - sent; due > 0 {
				w.publish(b, live, due)
				sent += due
			}
		}
	})
	do()
	cancel()
	publishing.Wait()
	return lags{ages(), commits()}
}

// watchAge looks now and then how old the oldest record without effect is. The function it returns ends it, when ctx has ended, and
// returns what was seen, sorted.
func (w *world) watchAge(t testing.TB, ctx context.Context) (ended func() []time.Duration) {
	done := make(chan []time.Duration, 1)
	go func() {
		var ages []time.Duration
		defer func() { done <- ages }()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			families, err := w.registry.Gather()
			if err != nil {
				t.Error(err)
				return
			}
			oldest := time.Duration(0)
			for _, f := range families {
				if f.GetName() != "tenantflow_partition_lag_seconds" {
					continue
				}
				for _, m := range f.GetMetric() {
					oldest = max(oldest, time.Duration(m.GetGauge().GetValue()*float64(time.Second)))
				}
			}
			ages = append(ages, oldest)
		}
	}()
	return func() []time.Duration {
		ages := <-done
		slices.Sort(ages)
		return ages
	}
}

// watchCommits notes now and then where the topic ends, and looks when the group has committed that. The function it returns ends it, when ctx
// has ended, and returns how long each took, sorted.
func (w *world) watchCommits(t testing.TB, ctx context.Context) (ended func() []time.Duration) {
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
