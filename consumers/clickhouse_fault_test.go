package consumers_test

import (
	"bytes"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// faultTimes are short: an insert of unknown outcome is settled when its deadline has passed, and a consumer that is
// asked to stop while it can't go on does so when its drain time is over.
const (
	faultInsert  = 1500 * time.Millisecond
	faultSession = 4 * time.Second
)

// unhurried is the time of inserts that must land in it for a test to show anything, also on a machine that is busy. What is settled then
// takes as long.
const unhurried = 15 * time.Second

// faulty is a consumer with those times.
func faulty(rows int) consumer {
	return consumer{insertTimeout: faultInsert, session: faultSession, rows: rows}
}

// isInsert recognises the request that carries usage rows: the statement travels in the URL.
func isInsert(request []byte) bool {
	return bytes.Contains(request, []byte("INSERT+INTO+usage_tracking"))
}

// hostOf is the HOST:PORT in a DSN.
func hostOf(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// via is a DSN with another HOST:PORT.
func via(t *testing.T, dsn, addr string) string {
	t.Helper()
	return strings.Replace(dsn, hostOf(t, dsn), addr, 1)
}

// finish waits until everything is consumed and stops the consumer. It asks the broker less often than others, as many of
// these tests wait at the same time.
func (f *fixture) finish(t *testing.T, stop func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	enginetest.Await(t, "the log to be consumed", func() bool {
		<-tick.C
		return f.Consumed(t)
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestLostAnswersOfInsertsChangeNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	messages, want := traffic(t, model.Config{Seed: 11, Count: 2400, Resends: 0.05, Conflicts: 0.002, Late: 0.02, Malformed: 0.005, Structured: 0.1})
	f.publish(t, messages)
	proxy := enginetest.Proxy(t, hostOf(t, f.dsn))
	inserted := make(chan struct{}, 1)
	c := faulty(250)
	c.dsn = via(t, f.dsn, proxy.Addr())
	c.onStep = func(s consumers.UsageStep) {
		if s == consumers.StepInserted {
			select {
			case inserted <- struct{}{}:
			default:
			}
		}
	}
	const losses = 6
	lost := proxy.SwallowResponse(isInsert)
	stop := f.start(t, c)
	for i := range losses {
		kafkatest.Await(t, "the answer of an insert to be lost", lost.Caught())
		if i == losses-1 {
			break
		}
		if i >= losses/2 {
			// The first losses follow upon each other, so that resends are hit; these hit later batches.
			select {
			case <-inserted:
			default:
			}
			kafkatest.Await(t, "an insert to succeed", inserted)
		}
		lost = proxy.SwallowResponse(isInsert)
	}
	f.finish(t, stop)
	f.verify(t, want)
}

func TestBrokenConnectionsToClickHouseChangeNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	messages, want := traffic(t, model.Config{Seed: 12, Count: 1500, Resends: 0.05, Late: 0.01})
	f.publish(t, messages)
	proxy := enginetest.Proxy(t, hostOf(t, f.dsn))
	c := faulty(120)
	c.dsn = via(t, f.dsn, proxy.Addr())
	var step atomic.Int32
	c.onStep = func(consumers.UsageStep) {
		// Whatever is under way, on all connections at once, now and then.
		if n := step.Add(1); n%9 == 0 && n < 60 {
			proxy.Cut()
		}
	}
	stop := f.start(t, c)
	f.finish(t, stop)
	f.verify(t, want)
}

func TestEventsWaitWhileClickHouseIsDown(t *testing.T) {
	t.Parallel()
	ch := enginetest.ClickHouse(t)
	f := newFixture(t, fixtureOptions{dsn: ch.DSN()})
	messages, want := traffic(t, model.Config{Seed: 13, Count: 2000, Resends: 0.05})
	f.publish(t, messages[:1000])
	c := faulty(100)
	c.health = health.New(time.Minute, slog.New(slog.DiscardHandler), "usage")
	inserted := make(chan struct{}, 64)
	c.onStep = func(s consumers.UsageStep) {
		if s == consumers.StepIntended {
			select {
			case inserted <- struct{}{}:
			default:
			}
		}
	}
	stop := f.start(t, c)
	kafkatest.Await(t, "an insert to begin", inserted)
	kafkatest.Await(t, "another insert to begin", inserted)
	if err := ch.Kill(); err != nil {
		t.Fatal(err)
	}
	f.publish(t, messages[1000:])
	var said health.PartReport
	enginetest.Await(t, "readiness to name what the partitions wait for", func() bool {
		r := c.health.Readiness()
		if r.Ready || len(r.Failing) == 0 {
			return false
		}
		said = r.Failing[0]
		return said.Lag > 0 && strings.Contains(said.Reason, "connection refused")
	})
	if said.Part != "usage" || said.State != health.Failing || !strings.Contains(said.Reason, f.Topic+"/") {
		t.Errorf("readiness said %+v", said)
	}
	waiting := f.Positions(t)
	if err := ch.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.AwaitConsumed(t)
	enginetest.Await(t, "readiness to come back", func() bool { return c.health.Readiness().Ready })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for id, p := range f.Positions(t) {
		if before := waiting[id]; before.Committed >= before.End {
			t.Errorf("partition %d had nothing to wait for: %+v, then %+v", id, before, p)
		}
	}
	f.verify(t, want)
}
