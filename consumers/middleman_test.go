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
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// A middleman stands between the service and ClickHouse and does to inserts what load balancers, proxies and networks do.
// Everything else it passes on.
type middleman struct {
	addr    string
	onward  *httputil.ReverseProxy
	inserts atomic.Int64
	codes   chan int // how ClickHouse answered each copy of an insert
}

// A copied insert can be passed on as often as a middleman likes, whether its sender waits or not.
type copiedInsert struct {
	*middleman
	n       int64 // from 1, in the order in which they came
	request *http.Request
	body    []byte
}

// newMiddleman passes inserts to what it is given, which answers them.
func newMiddleman(t *testing.T, target string, insert func(http.ResponseWriter, copiedInsert)) *middleman {
	t.Helper()
	transport := &http.Transport{}
	m := &middleman{onward: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target}), codes: make(chan int, 10_000)}
	m.onward.Transport = transport
	m.onward.ErrorLog = log.New(io.Discard, "", 0)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isInsert([]byte(r.URL.RawQuery)) {
			m.onward.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender has gone before its request was complete
		}
		insert(w, copiedInsert{m, m.inserts.Add(1), r, body})
	}))
	server.Config.ErrorLog = m.onward.ErrorLog
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	m.addr = strings.TrimPrefix(server.URL, "http://")
	return m
}

// pass sends a copy to ClickHouse, with settings added, and returns its answer.
func (c copiedInsert) pass(settings ...string) *httptest.ResponseRecorder {
	r := c.request.Clone(context.WithoutCancel(c.request.Context()))
	r.Body = io.NopCloser(bytes.NewReader(c.body))
	if len(settings) > 0 {
		r.URL.RawQuery += "&" + strings.Join(settings, "&")
	}
	answer := httptest.NewRecorder()
	c.onward.ServeHTTP(answer, r)
	code, err := strconv.Atoi(answer.Header().Get("X-ClickHouse-Exception-Code"))
	if err != nil && answer.Code != http.StatusOK {
		code = -answer.Code // not ClickHouse's answer
	}
	c.codes <- code
	return answer
}

// hold waits, as a network does that is slow.
func (c copiedInsert) hold(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.request.Context()), d)
	defer cancel()
	<-ctx.Done()
}

// hand gives an answer to the sender.
func hand(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// cut gives the head of an answer to the sender and the first bytes of its body, and breaks the connection.
func cut(w http.ResponseWriter, answer *httptest.ResponseRecorder, bytes int) {
	maps.Copy(w.Header(), answer.Header())
	w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()[:bytes])
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}

// The row comes late, ClickHouse refuses it for that, and the connection breaks within that answer: it says that a
// constraint was violated, and not which. That is no reason to give the event up.
func TestUsage_ARefusalThatIsCutRejectsNothing(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]int{"a lone row": 1, "a batch": 40} {
		for where, bytes := range map[string]int{"before its body": 0, "within its body": 10} {
			t.Run(name+"/"+where, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, fixtureOptions{partitions: 1})
				messages, want := traffic(t, model.Config{Seed: 21, Count: count})
				const often = 3 // more than one: a second refusal in the same words is no proof either
				m := newMiddleman(t, hostOf(t, f.dsn), func(w http.ResponseWriter, c copiedInsert) {
					if c.n > often {
						hand(w, c.pass())
						return
					}
					// Longer than the server takes it, shorter than its sender waits: a second longer than the server does. After one that
					// had no answer in time, as on a busy machine, it gives the next one more time.
					seconds, err := strconv.Atoi(c.request.URL.Query().Get("max_execution_time")) // rounded down
					if err != nil {
						t.Errorf("an insert does not say how long it may take: %v", err)
					}
					c.hold(time.Duration(seconds+1) * time.Second)
					cut(w, c.pass(), bytes)
				})
				c := faulty(1000)
				c.dsn = via(t, f.dsn, m.addr)
				f.publish(t, messages)
				f.finish(t, f.start(t, c))
				f.verify(t, want)
				for range min(often, len(m.codes)) {
					if code := <-m.codes; code != violatedConstraint {
						t.Errorf("ClickHouse answered a late insert with code %d", code)
					}
				}
			})
		}
	}
}

// A proxy sends inserts again, without the knowledge of the service, or says that they failed while they are under way.
func TestUsage_AProxyThatRetriesChangesNothing(t *testing.T) {
	t.Parallel()
	for name, insert := range map[string]func(http.ResponseWriter, copiedInsert){
		"one after the other": func(w http.ResponseWriter, c copiedInsert) {
			c.pass()
			hand(w, c.pass())
		},
		"both at once": func(w http.ResponseWriter, c copiedInsert) {
			first := make(chan struct{})
			go func() {
				defer close(first)
				c.pass()
			}()
			answer := c.pass()
			<-first
			hand(w, answer)
		},
		"the second fails": func(w http.ResponseWriter, c copiedInsert) {
			c.pass()
			hand(w, c.pass("max_memory_usage=1"))
		},
		"it gives up before the answer": func(w http.ResponseWriter, c copiedInsert) {
			const page = "<html><body>504 Gateway Timeout</body></html>"
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Content-Length", strconv.Itoa(len(page)))
			w.WriteHeader(http.StatusGatewayTimeout)
			_, _ = io.WriteString(w, page)
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			c.hold(500 * time.Millisecond)
			c.pass()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{})
			messages, want := traffic(t, model.Config{Seed: 24, Count: 1000, Resends: 0.05, Late: 0.02})
			m := newMiddleman(t, hostOf(t, f.dsn), func(w http.ResponseWriter, c copiedInsert) {
				if c.n%3 == 0 || c.n > 12 { // the rest of them as they should be, or it would take long
					hand(w, c.pass())
					return
				}
				insert(w, c)
			})
			c := faulty(200)
			c.dsn = via(t, f.dsn, m.addr)
			f.publish(t, messages)
			f.finish(t, f.start(t, c))
			f.verify(t, want)
		})
	}
}

// The proxy's first copy of an insert is stuck on its way, the second is answered with an error, and the first comes when
// the service has gone on.
func TestUsage_TheFirstCopyOfARetryingProxyComesLate(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	messages, want := traffic(t, model.Config{Seed: 25, Count: 1000, Resends: 0.02})
	const memoryLimitExceeded = 241
	late := make(chan int, 1)
	var stuck copiedInsert
	m := newMiddleman(t, hostOf(t, f.dsn), func(w http.ResponseWriter, c copiedInsert) {
		switch c.n {
		case 2:
			stuck = c
			hand(w, c.pass("max_memory_usage=1"))
		case 3:
			hand(w, c.pass())
			code, _ := strconv.Atoi(stuck.pass().Header().Get("X-ClickHouse-Exception-Code"))
			late <- code
		default:
			hand(w, c.pass())
		}
	})
	c := faulty(300)
	c.insertTimeout = unhurried // the inserts before and behind the stuck one must be in time, on a busy machine as well
	c.dsn = via(t, f.dsn, m.addr)
	f.publish(t, messages)
	f.finish(t, f.start(t, c))
	for i, want := range []int{0, memoryLimitExceeded, 0} {
		if code := <-m.codes; code != want {
			t.Errorf("ClickHouse answered insert %d with code %d, want %d", i+1, code, want)
		}
	}
	if code := kafkatest.Await(t, "the late copy to be answered", late); code != violatedConstraint {
		t.Errorf("ClickHouse answered the late copy with code %d", code)
	}
	f.verify(t, want)
}

// Inserts take about as long on their way as they may: some come in time, some do not, and the outcome of some is unknown.
func TestUsage_ASlowNetworkChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	messages, want := traffic(t, model.Config{Seed: 26, Count: 800, Resends: 0.05})
	m := newMiddleman(t, hostOf(t, f.dsn), func(w http.ResponseWriter, c copiedInsert) {
		if c.n > 8 {
			hand(w, c.pass())
			return
		}
		// Around the deadline on the way there, and around the end of its sender's patience on the way back.
		c.hold(faultInsert + time.Duration(c.n-4)*100*time.Millisecond)
		answer := c.pass()
		c.hold(time.Duration(c.n) * 200 * time.Millisecond)
		hand(w, answer)
	})
	c := faulty(200)
	c.dsn = via(t, f.dsn, m.addr)
	f.publish(t, messages)
	f.finish(t, f.start(t, c))
	f.verify(t, want)
}
