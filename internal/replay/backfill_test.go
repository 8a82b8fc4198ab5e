package replay_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/model"
	"tenantflow/internal/task"
)

// both are the tables after two streams that share no event.
func both(a, b model.Tables) model.Tables {
	add := func(x, y model.Sums) model.Sums {
		return model.Sums{Rows: x.Rows + y.Rows, DataPoints: x.DataPoints + y.DataPoints, Processing: x.Processing + y.Processing,
			Revenue: x.Revenue + y.Revenue, Last: max(x.Last, y.Last)}
	}
	addAll := func(x, y map[string]model.Sums) map[string]model.Sums {
		sum := maps.Clone(x)
		for k, s := range y {
			sum[k] = add(sum[k], s)
		}
		return sum
	}
	return model.Tables{Rows: a.Rows + b.Rows, Identities: a.Identities + b.Identities, Contents: a.Contents + b.Contents, Total: add(a.Total, b.Total),
		Hourly: addAll(a.Hourly, b.Hourly), Daily: addAll(a.Daily, b.Daily), Monthly: addAll(a.Monthly, b.Monthly)}
}

// A day of which one event in 33 never reached ClickHouse is replayed beside live traffic, on Apache Kafka. The process that replays is
// killed again and again, at its steps and anywhere, and each fifth time Postgres or the broker is killed as well. The report must be what
// the dry run said, and rows and totals what the model says. `make backfill` does it with two million events and 50 kills.
func TestReplay_BackfillUnderKills(t *testing.T) {
	t.Parallel()
	count, kills := enginetest.Number(t, "TENANTFLOW_TEST_BACKFILL_EVENTS", 6000), enginetest.Number(t, "TENANTFLOW_TEST_BACKFILL_KILLS", 6)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d events, %d kills", seed, count, kills)
	random := rand.New(rand.NewPCG(seed, 0))
	broker, store := enginetest.ApacheKafka(t), enginetest.Postgres(t)
	w := newWorldOn(t, broker, postgrestest.On(t, store.DSN()), 4)
	step := 5 * time.Hour / time.Duration(count) // from six hours ago to one: the model knows no future
	// Small ones, because a child that is left alone for some seconds must not come to the end.
	w.Chunk = max(50, count/kills/20)
	w.batchRows = max(500, count/100)
	g := generator(t, model.Config{Seed: seed, Count: count, Step: step, Companies: 40, UsersPerCompany: 20, Resends: 0.05, Late: 0.05, Malformed: 0.005, Structured: 0.1})
	began := time.Now()
	w.publish(t, g, 0)
	t.Logf("%6.1fs published", time.Since(began).Seconds())
	stop := w.consume(t, lost)
	w.awaitConsumedWithin(t, time.Hour)
	missing := stop()
	t.Logf("%6.1fs consumed, %d are missing", time.Since(began).Seconds(), len(missing))

	s := w.station(t, w.chunks)
	want, named := s.dry(t, everything())
	if !maps.Equal(named, missing) {
		t.Errorf("the dry run names %d events, %d are missing", len(named), len(missing))
	}
	t.Logf("%6.1fs the dry run says %v", time.Since(began).Seconds(), want.Counts)

	w.consume(t, nil)
	live := generator(t, model.Config{Seed: seed + 1, Count: count, Step: step, Companies: 40, UsersPerCompany: 20, Resends: 0.05})
	made := s.create(t, everything())
	over := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			p := model.Publishing{Client: w.client, Topic: w.topic(), Limit: max(20, count/1000), Attempts: 1000}
			before := live.Expected().Messages
			n, err := model.Publish(t.Context(), live, p)
			switch {
			case err != nil && live.Expected().Messages > before: // otherwise the broker was away, and nothing was begun
				t.Errorf("live traffic: %v", err)
				return
			case err == nil && n == 0:
				return // there is no more
			}
		}
	})

	steps := []task.Step{task.StepClaimed, task.StepDecided, task.StepProposed, task.StepPublished, task.StepAdvanced}
	struck := 0
	for n := range kills {
		if n%2 == 0 {
			step, nth := steps[random.IntN(len(steps))], int32(1)
			if step != task.StepClaimed {
				nth += random.Int32N(3)
			}
			if !w.crashAt(t, made.ID, step, nth) {
				t.Fatalf("the task has ended after %d of %d kills", n, kills)
			}
			continue
		}
		child := w.spawn(t, crash{World: w, Task: made.ID})
		child.Live(t, time.Duration(random.Int64N(int64(1500*time.Millisecond))))
		if n%10 == 1 || n%10 == 5 { // a fifth of all
			struck++
			if struck%2 == 1 {
				w.strike(t, store, child, time.Duration(random.Int64N(int64(time.Second))))
			} else {
				w.strike(t, broker, child, time.Duration(random.Int64N(int64(time.Second))))
			}
			child.Live(t, time.Duration(random.Int64N(int64(3*time.Second))))
		}
		child.Kill(t)
	}
	t.Logf("%6.1fs killed %d times, a store %d times", time.Since(began).Seconds(), kills, struck)
	got := s.runWithin(t, made.ID, time.Hour)
	close(over)
	publishing.Wait()
	t.Logf("%6.1fs %s %v", time.Since(began).Seconds(), got.State, got.Counts)
	if got.State != task.Done || !maps.Equal(got.Counts, want.Counts) {
		t.Errorf("got %s %v, want %v", got.State, got.Counts, want.Counts)
	}
	w.awaitConsumedWithin(t, time.Hour)
	expected := g.Expected()
	expected.Tables = both(expected.Tables, live.Expected().Tables)
	w.matches(t, expected, true)
	if again := s.runWithin(t, s.create(t, everything()).ID, time.Hour); again.Counts["published"] != 0 || again.Counts["conflict"] != 0 {
		t.Errorf("a second replay: %v", again.Counts)
	}
	t.Logf("%6.1fs all as the model says, with %d live events", time.Since(began).Seconds(), live.Expected().Messages)
}

// A victim is an engine that can be killed.
type victim interface {
	Kill() error
	Start(ctx context.Context) error
}

// strike kills a store, lets the child live with that for a while, and starts the store again.
func (w *world) strike(t testing.TB, v victim, child *enginetest.Child, gone time.Duration) {
	t.Helper()
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Live(t, gone)
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}
