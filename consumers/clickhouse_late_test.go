package consumers_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/sinks/clickhouse"
)

// A front stands before ClickHouse as a load balancer would: it takes a request whole, passes it on and hands the
// answer back. It remembers how inserts were answered, and can be slow to hand an answer over.
type front struct {
	addr string

	mu      sync.Mutex
	inserts []int         // ClickHouse's error codes; 0: it took the rows
	delay   time.Duration // of the answer to the next reading of the clock
}

func newFront(t *testing.T, target string) *front {
	t.Helper()
	f := &front{}
	onward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	onward.ErrorLog = log.New(io.Discard, "", 0)
	transport := &http.Transport{}
	onward.Transport = transport
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.serve(w, r, onward) }))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	f.addr = strings.TrimPrefix(server.URL, "http://")
	return f
}

func (f *front) serve(w http.ResponseWriter, r *http.Request, onward http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone before its request was complete
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	onward.ServeHTTP(answer, r)
	if strings.Contains(r.URL.RawQuery, "INSERT+INTO+usage_tracking") {
		code, err := strconv.Atoi(answer.Header().Get("X-ClickHouse-Exception-Code"))
		if err != nil && answer.Code != http.StatusOK {
			code = -answer.Code // not ClickHouse's answer
		}
		f.mu.Lock()
		f.inserts = append(f.inserts, code)
		f.mu.Unlock()
	}
	if bytes.HasPrefix(body, []byte("SELECT toUnixTimestamp64Milli(now64(3))")) { // other statements ask for more
		f.mu.Lock()
		delay := f.delay
		f.delay = 0
		f.mu.Unlock()
		kept, cancel := context.WithTimeout(r.Context(), delay)
		<-kept.Done()
		cancel()
	}
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// answers are the error codes of the inserts that were answered until now.
func (f *front) answers() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.inserts)
}

// violatedConstraint is ClickHouse's VIOLATED_CONSTRAINT.
const violatedConstraint = 469

// A lateInsert is an insert whose request is held up on its way for longer than the service waits.
type lateInsert struct {
	// takeover: its sender is gone, and another one cuts the batches in other places. Else its sender goes on.
	takeover bool
	store    func(consumers.UsageStore) consumers.UsageStore
}

// run lets the service finish its work while the insert is held, then lets the insert go and waits for the server's
// answer to it, which is ClickHouse's error code.
func (l lateInsert) run(t *testing.T, seed uint64) (f *fixture, want model.Expected, answer int) {
	t.Helper()
	f = newFixture(t, fixtureOptions{partitions: 1})
	messages, want := traffic(t, model.Config{Seed: seed, Count: 1500, Resends: 0.02, Structured: 0.1})
	f.publish(t, messages)
	before := newFront(t, hostOf(t, f.dsn))
	proxy := enginetest.Proxy(t, before.addr)
	held := proxy.HoldRequest(isInsert)

	c := faulty(400)
	c.dsn = via(t, f.dsn, proxy.Addr())
	c.store = l.store
	gaveUp, frozen := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.onStep = func(s consumers.UsageStep) {
		if s == consumers.StepUnknown {
			once.Do(func() {
				close(gaveUp)
				<-frozen
			})
		}
	}
	stop := f.start(t, c)
	kafkatest.Await(t, "the insert to be held", held.Caught())
	kafkatest.Await(t, "its sender to give up on it", gaveUp)
	if l.takeover {
		proxy.Refuse(true) // whatever its sender still wants, it can't
		close(frozen)
		_ = stop()
		proxy.Refuse(false)
		c = faulty(300)
		c.store = l.store
		stop = f.start(t, c)
	} else {
		close(frozen)
	}
	f.finish(t, stop)

	answered := len(before.answers())
	held.Release()
	enginetest.Await(t, "the late insert to be answered", func() bool { return len(before.answers()) > answered })
	return f, want, before.answers()[answered]
}

func TestAnInsertHeldBackPastItsDeadlineIsRefused(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]lateInsert{"its sender goes on": {}, "another member has taken over": {takeover: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, want, answer := late.run(t, 21)
			if answer != violatedConstraint {
				t.Errorf("the server answered the late insert with code %d, not with %d", answer, violatedConstraint)
			}
			f.verify(t, want)
		})
	}
}

// slowClock makes the front keep the answer to the next reading of the clock for so long. Its reader believes the server
// to be behind by half of that; where it is more than the time an insert gets, every deadline has passed for the server.
func (f *front) slowClock(delay time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = delay
}

func TestAWrongIdeaOfTheServersClockIsCorrected(t *testing.T) {
	t.Parallel()
	t.Run("from the start", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, fixtureOptions{})
		messages, want := traffic(t, model.Config{Seed: 22, Count: 1500, Resends: 0.02, Late: 0.02})
		f.publish(t, messages)
		slow := newFront(t, hostOf(t, f.dsn))
		c := faulty(300)
		c.dsn = via(t, f.dsn, slow.addr)
		c.store = func(s consumers.UsageStore) consumers.UsageStore {
			return &misledFirst{UsageStore: s, before: func(ctx context.Context) error {
				slow.slowClock(3 * faultInsert)
				return s.SyncClock(ctx)
			}}
		}
		f.finish(t, f.start(t, c))
		if answers := slow.answers(); !slices.Contains(answers, violatedConstraint) || answers[len(answers)-1] != 0 {
			t.Errorf("inserts were answered with the codes %v: some should be %d, the last 0", answers, violatedConstraint)
		}
		f.verify(t, want)
	})
	t.Run("when an insert is settled", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, fixtureOptions{partitions: 1})
		messages, want := traffic(t, model.Config{Seed: 23, Count: 1000, Resends: 0.02})
		f.publish(t, messages)
		slow := newFront(t, hostOf(t, f.dsn))
		proxy := enginetest.Proxy(t, slow.addr)
		lost := proxy.SwallowResponse(isInsert)
		c := faulty(300)
		c.insertTimeout = time.Second
		c.dsn = via(t, f.dsn, proxy.Addr())
		c.store = func(s consumers.UsageStore) consumers.UsageStore {
			return &misled{UsageStore: s, before: func(ctx context.Context) error {
				slow.slowClock(10 * time.Second) // late inserts get up to four times their time
				return s.SyncClock(ctx)
			}}
		}
		stop := f.start(t, c)
		kafkatest.Await(t, "the answer of an insert to be lost", lost.Caught())
		f.finish(t, stop)
		f.verify(t, want)
	})
}

// misledFirst is a store to which something happens before its first insert.
type misledFirst struct {
	consumers.UsageStore
	before func(context.Context) error
	once   sync.Once
}

func (s *misledFirst) Acquire(ctx context.Context) (release func(), err error) {
	s.once.Do(func() { err = s.before(ctx) })
	if err != nil {
		return nil, err
	}
	return s.UsageStore.Acquire(ctx)
}

// misled is a store to which something happens before it settles the first insert.
type misled struct {
	consumers.UsageStore
	before func(context.Context) error
	done   bool
}

func (s *misled) Await(ctx context.Context, in *clickhouse.Intent, how clickhouse.Settling) (*clickhouse.Landed, error) {
	if !s.done {
		if err := s.before(ctx); err != nil {
			return nil, err
		}
		s.done = true
	}
	return s.UsageStore.Await(ctx, in, how)
}
