package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/sinks/clickhouse"
)

// A gate is something that one of the feeds must read before it goes on, and that answers when the test says so.
type gate struct {
	url     string
	reached chan struct{}
	open    func()
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{reached: make(chan struct{})}
	opened := make(chan struct{})
	var once, reached sync.Once
	g.open = func() { once.Do(func() { close(opened) }) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Do(func() { close(g.reached) })
		select {
		case <-opened:
		case <-r.Context().Done():
		}
		_, _ = w.Write([]byte("1\n"))
	}))
	t.Cleanup(func() { g.open(); server.Close() })
	g.url = server.URL
	return g
}

// put makes the daily feed read the gate for every block. What it feeds stays the same.
func (g *gate) put(t *testing.T, f *fixture) {
	t.Helper()
	var statement string
	if err := f.db.QueryRow(t.Context(), "SELECT as_select FROM system.tables WHERE database = currentDatabase() AND name = 'usage_daily_feed'").Scan(&statement); err != nil {
		t.Fatal(err)
	}
	head, tail, ok := strings.Cut(statement, " GROUP BY ")
	if !ok {
		t.Fatalf("no GROUP BY in the daily feed: %s", statement)
	}
	err := f.db.Exec(t.Context(), fmt.Sprintf("ALTER TABLE usage_daily_feed MODIFY QUERY %s CROSS JOIN (SELECT x FROM url('%s', 'TSV', 'x UInt8')) AS gate GROUP BY %s",
		head, g.url, tail))
	if err != nil {
		t.Fatal(err)
	}
}

// count reads one number.
func (f *fixture) count(t *testing.T, query string) (n uint64) {
	t.Helper()
	if err := f.db.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// killBetweenRowsAndViews is a ClickHouse that is killed after a block has landed in the table of rows and before it has
// landed in the view by day, and that is then started again. The other views may have it or not.
type killBetweenRowsAndViews struct {
	takeover bool // the service dies as well; the next one cuts its batches in other places
	store    func(consumers.UsageStore) consumers.UsageStore
}

func (k killBetweenRowsAndViews) run(t *testing.T, seed uint64) (*fixture, model.Expected) {
	t.Helper()
	ch := enginetest.ClickHouse(t)
	f := newFixture(t, fixtureOptions{dsn: ch.DSN(), partitions: 1})
	g := newGate(t)
	g.put(t, f)
	messages, want := traffic(t, model.Config{Seed: seed, Count: 1500, Resends: 0.02})
	f.publish(t, messages)
	c := faulty(400)
	c.insertTimeout = unhurried // the server gives up on a query that takes longer; it is to be killed before that
	c.store = k.store
	stop := f.start(t, c)
	kafkatest.Await(t, "a block to come to the gate", g.reached)
	enginetest.Await(t, "the rows to have landed", func() bool { return f.count(t, "SELECT count() FROM usage_tracking") > 0 })
	if err := ch.Kill(); err != nil {
		t.Fatal(err)
	}
	if k.takeover {
		_ = stop()
	}
	g.open()
	if err := ch.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k.takeover {
		// No other process has touched it yet: this is the state that the kill has left.
		rows, daily := f.count(t, "SELECT count() FROM usage_tracking"), f.count(t, "SELECT toUInt64(sum(api_calls)) FROM usage_daily_store")
		if rows == 0 || daily != 0 {
			t.Fatalf("the kill left %d rows, %d of them by day", rows, daily)
		}
		c.rows = 300
		stop = f.start(t, c)
	}
	f.finish(t, stop)
	return f, want
}

func TestAKillBetweenRowsAndViewsIsMended(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]killBetweenRowsAndViews{"of ClickHouse": {}, "of ClickHouse and of the service": {takeover: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, want := kill.run(t, 31)
			f.verify(t, want)
		})
	}
}

// forgetful is a store whose server loses deduplication logs between an insert and its settling.
type forgetful struct {
	consumers.UsageStore
	lose    func()
	once    sync.Once
	doubled atomic.Int64
	resends func(*clickhouse.Intent) // called before what has landed is sent once more
}

func (s *forgetful) Await(ctx context.Context, in *clickhouse.Intent, how clickhouse.Settling) (*clickhouse.Landed, error) {
	s.once.Do(s.lose)
	return s.UsageStore.Await(ctx, in, how)
}

func (s *forgetful) Complete(ctx context.Context, in *clickhouse.Intent, landed *clickhouse.Landed) (clickhouse.Settled, error) {
	if landed.Rows() > 0 {
		s.resends(in)
	}
	settled, err := s.UsageStore.Complete(ctx, in, landed)
	s.doubled.Add(int64(settled.Doubled))
	return settled, err
}

func TestRowsThatLandTwiceAfterALostDeduplicationLogAreDeleted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tables []string // whose log is lost
		views  bool     // the views count the rows twice
	}{
		"of the rows":       {tables: []string{"usage_tracking"}},
		"of rows and views": {tables: []string{"usage_tracking", "usage_hourly_store", "usage_daily_store", "billing_monthly_store"}, views: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{partitions: 1})
			messages, want := traffic(t, model.Config{Seed: 32, Count: 1500, Resends: 0.02})
			f.publish(t, messages)
			proxy := enginetest.Proxy(t, hostOf(t, f.dsn))
			lost := proxy.SwallowResponse(isInsert)
			store := &forgetful{lose: func() {
				for _, table := range c.tables {
					for _, window := range []int{0, 10_000} {
						if err := f.db.Exec(t.Context(), fmt.Sprintf("ALTER TABLE %s MODIFY SETTING non_replicated_deduplication_window = %d", table, window)); err != nil {
							t.Errorf("lose the log: %v", err)
						}
					}
				}
			}, resends: func(in *clickhouse.Intent) {
				if at := f.Positions(t)[0]; at.Metadata != in.Metadata() {
					t.Errorf("rows are sent once more under %q, and what is committed is %q", in.Metadata(), at.Metadata)
				}
			}}
			service := faulty(400)
			service.insertTimeout = unhurried // the insert whose answer is lost must have landed
			service.uncorrected = true        // the views are to show what was counted twice
			service.dsn = via(t, f.dsn, proxy.Addr())
			service.store = func(s consumers.UsageStore) consumers.UsageStore { store.UsageStore = s; return store }
			stop := f.start(t, service)
			kafkatest.Await(t, "the answer of an insert to be lost", lost.Caught())
			f.finish(t, stop)
			doubled := store.doubled.Load()
			if doubled == 0 {
				t.Error("no row landed twice")
			}
			if !c.views {
				f.verify(t, want)
				return
			}
			// The views are for verify --repair to mend, and they are off by exactly what was counted.
			for _, d := range f.differences(t, want) {
				if !strings.HasPrefix(d, "views: ") {
					t.Error(d)
				}
			}
			for _, sum := range []string{"sum(requests)) FROM usage_hourly_store", "sum(api_calls)) FROM usage_daily_store", "sum(api_calls)) FROM billing_monthly_store"} {
				if n := int64(f.count(t, "SELECT toUInt64("+sum)); n != want.Tables.Rows+doubled {
					t.Errorf("(%s: %d, want %d rows and %d counted twice", sum, n, want.Tables.Rows, doubled)
				}
			}
		})
	}
}

// brittle is a store whose first settling fails, as one does that loses its connection while it resends.
type brittle struct {
	consumers.UsageStore
	mu    sync.Mutex
	waits []bool
}

func (s *brittle) Await(ctx context.Context, in *clickhouse.Intent, how clickhouse.Settling) (*clickhouse.Landed, error) {
	s.mu.Lock()
	s.waits = append(s.waits, how.Wait)
	first := len(s.waits) == 1
	s.mu.Unlock()
	if first {
		return nil, errors.New("the connection was lost")
	}
	return s.UsageStore.Await(ctx, in, how)
}

func TestASettlingThatFailedIsTakenForUnderWay(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	if err := f.db.Exec(t.Context(), "ALTER TABLE usage_tracking ADD CONSTRAINT not_of_these CHECK NOT startsWith(company_id, 'refused-')"); err != nil {
		t.Fatal(err)
	}
	messages, want := traffic(t, model.Config{Seed: 33, Count: 40})
	want.DeadLetters[events.RejectedByStore]++
	f.publish(t, append(messages, refused("refused-acme", 1, time.Now())))
	c := faulty(400)
	c.insertTimeout = unhurried // the first settling is that of a refusal, not that of an insert without an answer
	store := &brittle{}
	c.store = func(s consumers.UsageStore) consumers.UsageStore { store.UsageStore = s; return store }
	f.finish(t, f.start(t, c))
	// The server's refusal leaves nothing under way. What a settling that failed has sent may be.
	if len(store.waits) < 2 || store.waits[0] || !store.waits[1] {
		t.Errorf("the settlings waited until the server takes nothing more: %v", store.waits)
	}
	f.verify(t, want)
}
