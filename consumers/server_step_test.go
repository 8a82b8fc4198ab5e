package consumers_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// A serverStep is a step of ClickHouse's own while it stores an insert, at which it is killed or one of its calls fails.
// The service's steps are around an insert; these are within one, where the server's promises end.
type serverStep struct {
	table string
	view  string // as the model names what the table feeds; "" for the rows
	call  enginetest.Call
	error syscall.Errno // 0: killed
}

// viewsOf are the tables that an insert reaches, each with what the model calls the view over it.
func viewsOf() map[string]string {
	return map[string]string{"usage_tracking": "", "usage_hourly_store": "hourly", "usage_daily_store": "daily", "billing_monthly_store": "monthly"}
}

// serverSteps are the steps of an insert into each table that it reaches: a part is written aside, its token goes into the
// deduplication log, the part is moved into place.
func serverSteps() []serverStep {
	var steps []serverStep
	for table, view := range viewsOf() {
		steps = append(steps,
			serverStep{table: table, view: view, call: enginetest.Write},
			serverStep{table: table, view: view, call: enginetest.Rename},
			serverStep{table: table, view: view, call: enginetest.Rename, error: syscall.ENOSPC})
	}
	slices.SortFunc(steps, func(a, b serverStep) int { return strings.Compare(a.String(), b.String()) })
	return steps
}

func (s serverStep) String() string {
	what := "killed before its token is written"
	switch {
	case s.error != 0:
		what = "part can't be moved"
	case s.call == enginetest.Rename:
		what = "killed before its part is moved"
	}
	return s.table + "/" + what
}

// losesTotal reports whether the step leaves a view without its share although the view's table remembers the token, so
// that sending the rows again does not complete it. The check of totals does.
func (s serverStep) losesTotal() bool { return s.view != "" && s.call == enginetest.Rename }

// fault is what breaks the nth insert from now on at that step.
func (s serverStep) fault(t *testing.T, ch *engine.ClickHouse, nth int) enginetest.Fault {
	t.Helper()
	path := enginetest.DataDir(t, ch, "tenantflow", s.table)
	if s.call == enginetest.Rename {
		path += "tmp_insert_"
	} else {
		path += "deduplication_logs/"
	}
	return enginetest.Fault{Call: s.call, Path: path, Nth: nth, Error: s.error}
}

// verifyAfter compares everything with the model, but for totals that a server's step has left wrong; for those it waits.
func (f *fixture) verifyAfter(t *testing.T, want model.Expected, steps ...serverStep) {
	t.Helper()
	mayLag := func(d string) bool {
		return slices.ContainsFunc(steps, func(s serverStep) bool { return s.losesTotal() && strings.HasPrefix(d, "views: "+s.view) })
	}
	for _, d := range f.differences(t, want) {
		if !mayLag(d) {
			t.Error(d)
		}
	}
	stop := f.start(t, faulty(1000)) // the totals are compared beside the consumer
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	enginetest.Await(t, "the totals to be corrected", func() bool {
		<-tick.C
		return len(f.differences(t, want)) == 0
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A brokenServer is a fixture on a ClickHouse of its own that can be broken.
type brokenServer struct {
	*fixture
	server *engine.ClickHouse
	faults *enginetest.Faults
}

func newBrokenServer(t *testing.T, partitions int) brokenServer {
	t.Helper()
	ch, faults := enginetest.FaultyClickHouse(t)
	return brokenServer{newFixture(t, fixtureOptions{dsn: ch.DSN(), partitions: partitions}), ch, faults}
}

func (b brokenServer) restart(t *testing.T) {
	t.Helper()
	if err := b.server.Kill(); err != nil { // its processes are gone when this returns
		t.Fatal(err)
	}
	if err := b.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestUsage_AServerThatFailsAtAStepLosesNothing(t *testing.T) {
	t.Parallel()
	for _, step := range serverSteps() {
		for name, takeover := range map[string]bool{"the service goes on": false, "the service is killed": true} {
			t.Run(step.String()+"/"+name, func(t *testing.T) {
				t.Parallel()
				b := newBrokenServer(t, 1)
				messages, want := traffic(t, model.Config{Seed: 31, Count: 900, Resends: 0.02})
				b.publish(t, messages)
				// The second insert, so that a block lies before the broken one.
				b.faults.Arm(t, step.fault(t, b.server, 2))
				c := consumer{insertTimeout: crashInsert, session: crashSession, rows: 100}
				var stop func() error
				if takeover {
					// The server's fault makes the outcome of the insert unknown, and there the service dies. The next one
					// cuts its batches in the same places.
					// On a busy machine it may be another insert that gets no answer in time. Then it is its heir's turn.
					for struck := false; !struck; struck = b.faults.Struck(t) {
						// A server that dies of an insert that was given up lets no heir come so far: then it was killed where it was.
						dead := func() bool {
							select {
							case <-b.server.Exited():
								return true
							default:
								return false
							}
						}
						if !b.crashAtUnless(t, crash{Step: consumers.StepUnknown, Nth: 1}, func() bool { return dead() || b.Consumed(t) }) && !dead() {
							t.Fatal("the service never came to an insert of unknown outcome")
						}
						// The insert may still be under way, and be struck.
						enginetest.Await(t, "the insert to end, or the server's step", func() bool {
							var inserts uint64
							err := b.db.QueryRow(t.Context(), insertsUnderWay).Scan(&inserts)
							return b.faults.Struck(t) || err == nil && inserts == 0
						})
					}
				} else {
					stop = b.start(t, c)
				}
				enginetest.Await(t, "the server's step", func() bool { return b.faults.Struck(t) })
				if step.error == 0 {
					kafkatest.Await(t, "the server to die", b.server.Exited())
					b.restart(t)
				}
				if takeover {
					stop = b.start(t, c)
				}
				b.finish(t, stop)
				b.verifyAfter(t, want, step)
			})
		}
	}
}

func TestUsage_KillsAtRandomStepsOfBothLoseNothing(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	b := newBrokenServer(t, 3)
	messages, want := traffic(t, model.Config{Seed: seed, Count: 6000, Resends: 0.1, Conflicts: 0.01, Late: 0.1, Malformed: 0.02})
	b.publish(t, messages)
	// A server that has died comes back, whatever the service is doing.
	stop := background(t, func(ctx context.Context) error {
		for {
			select {
			case <-b.server.Exited():
			case <-ctx.Done():
				return nil
			}
			if err := b.server.Kill(); err != nil {
				return err
			}
			if err := b.server.Start(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	})
	steps, crashes := serverSteps(), crashes()
	var faults []enginetest.Fault // now, while the server can say where its tables are
	for _, s := range steps {
		faults = append(faults, s.fault(t, b.server, 1+random.IntN(6)))
	}
	armed := false
	for range 6 {
		if !armed || b.faults.Struck(t) {
			i := random.IntN(len(steps))
			b.faults.Arm(t, faults[i])
			armed = true
			t.Logf("armed: %s, %d.", steps[i], faults[i].Nth)
		}
		c := crashes[random.IntN(len(crashes))]
		c.Nth = 1 + random.Int32N(4)
		c.Lost = c.Lost || random.IntN(3) == 0
		t.Logf("the service is killed at %s, %d., answers lost: %v", c.Step, c.Nth, c.Lost)
		if !b.crashAt(t, c) {
			break
		}
	}
	b.finish(t, b.start(t, consumer{insertTimeout: crashInsert, session: crashSession, rows: 100}))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b.verifyAfter(t, want, steps...)
}
