package consumers_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/model"
)

// A lateRequest holds back the first request that matches, as a network does that loses a segment and repeats it much
// later: its sender believes it is sent, and closing the connection does not take it back.
type lateRequest struct {
	match   func(request []byte) bool
	once    sync.Once
	caught  chan struct{} // closed when the request is held
	release chan struct{} // closed by the test
	sent    chan struct{} // closed when the broker has answered it
}

func newLateRequest(match func([]byte) bool) *lateRequest {
	return &lateRequest{match: match, caught: make(chan struct{}), release: make(chan struct{}), sent: make(chan struct{})}
}

// isRequest reports whether bytes on the wire begin with a request of this kind: size, then key.
func isRequest(b []byte, key kmsg.Key) bool {
	return len(b) > 8 && binary.BigEndian.Uint16(b[4:]) == uint16(key)
}

// ofDone matches the commit of what is done, alone: it has no handler's metadata behind the mark.
func ofDone(topic string) func([]byte) bool {
	return func(b []byte) bool {
		return isRequest(b, kmsg.OffsetCommit) && bytes.Contains(b, []byte(topic)) && !bytes.Contains(b, []byte("tf1 ")) && !bytes.Contains(b, []byte("tf2 "))
	}
}

func (l *lateRequest) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &lateConn{Conn: c, late: l}, nil
}

type lateConn struct {
	net.Conn
	late *lateRequest
	mu   sync.Mutex
	held bool
}

func (c *lateConn) Write(b []byte) (int, error) {
	l := c.late
	if !l.match(b) {
		return c.Conn.Write(b)
	}
	first := false
	l.once.Do(func() { first = true })
	if !first {
		return c.Conn.Write(b)
	}
	c.mu.Lock()
	c.held = true
	c.mu.Unlock()
	b = bytes.Clone(b)
	close(l.caught)
	go func() {
		defer close(l.sent)
		<-l.release
		_ = c.Conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = c.Conn.Write(b)
		_, _ = c.Conn.Read(make([]byte, 1024)) // the broker has judged it
		_ = c.Conn.Close()
	}()
	return len(b), nil
}

// SetDeadline does not reach a connection whose request is held.
func (c *lateConn) SetDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		return nil
	}
	return c.Conn.SetDeadline(at)
}

func (c *lateConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	held := c.held
	c.mu.Unlock()
	if held { // no answer comes before the request arrives; its sender does not wait that long
		select {
		case <-c.late.sent:
		case <-time.After(3 * time.Second):
		}
		return 0, net.ErrClosed
	}
	return c.Conn.Read(b)
}

func (c *lateConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		return nil
	}
	return c.Conn.Close()
}

// The first commit of what is done is late on its way. Its sender goes on, and an insert of it is late as well. Then the
// commit arrives, the owner dies, its heir consumes everything, and at last the insert arrives.
func TestCommit_UnansweredEndsTheGeneration(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{partitions: 1, broker: broker})
		messages, want := traffic(t, model.Config{Seed: 21, Count: 200, Start: time.Date(2025, 11, 20, 1, 0, 0, 0, time.UTC)})
		late := newLateRequest(ofDone(f.topic))
		proxy := enginetest.Proxy(t, hostOf(t, f.dsn))
		c := faulty(1000)
		c.insertTimeout = 15 * time.Second // the held insert arrives in time
		c.dsn = via(t, f.dsn, proxy.Addr())
		c.dial = late.dial
		stop := f.start(t, c)
		f.publish(t, messages[:100])
		await(t, "the commit of what is done to be held", late.caught)
		f.awaitConsumed(t, time.Minute) // by another commit
		held := proxy.HoldRequest(isInsert)
		f.publish(t, messages[100:])
		await(t, "the insert to be held", held.Caught())
		intended := f.positions(t)[0]
		if intended.metadata == "" {
			t.Fatalf("there is no intent: %+v", intended)
		}
		close(late.release)
		await(t, "the first commit to arrive", late.sent)
		if now := f.positions(t)[0]; now != intended {
			t.Errorf("the late commit was taken: %+v, then %+v", intended, now)
		}
		proxy.Refuse(true)
		_ = stop() // its owner dies
		proxy.Refuse(false)
		c = faulty(70)
		c.insertTimeout = 15 * time.Second
		f.finish(t, f.start(t, c))
		held.Release()
		// Nothing says that the insert was refused; a later query of the same kind has seen what it did.
		f.settled(t)
		f.verify(t, want)
	})
}

// settled waits until ClickHouse runs no insert any more.
func (f *fixture) settled(t *testing.T) {
	t.Helper()
	quiet := time.Now().Add(2 * time.Second)
	eventually(t, "the inserts to be over", time.Minute, func() bool {
		if f.count(t, "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO usage_tracking%'") > 0 {
			quiet = time.Now().Add(2 * time.Second)
		}
		return time.Now().After(quiet)
	})
}

// membership makes the connections of a member's place in the group, and breaks them all on request.
type membership struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (m *membership) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.conns = append(m.conns, c)
	}
	return c, err
}

func (m *membership) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.conns = nil
}

// A member whose connection breaks comes back with the same id, and into the same generation if it is a follower. A commit
// that was given up when the drain time was over must not be taken there, nor anything be committed beside it.
func TestCommit_GivenUpIsNotTakenLater(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 2)
		var log transcript
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(log.String())
			}
		})
		var taken journal
		patient := func(c *consumers.Config) {
			c.SessionTimeout, c.RebalanceTimeout, c.Drain, c.CommitTimeout = 20*time.Second, 20*time.Second, 500*time.Millisecond, time.Minute
		}
		leader := f.join(t, consumers.EachEvent(&taken), patient)
		eventually(t, "the leader has both partitions", 2*time.Minute, func() bool { return leader.partitions() == 2 })
		late := newLateRequest(ofDone(f.topic))
		var place membership
		follower := f.join(t, consumers.EachEvent(&taken), patient, func(c *consumers.Config) {
			c.Transport.Dial = late.dial
			c.Dialer = &kafka.Dialer{Timeout: 10 * time.Second, DialFunc: place.dial}
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		eventually(t, "each has one partition", 2*time.Minute, func() bool { return leader.partitions() == 1 && follower.partitions() == 1 })
		f.produce(t, append(numbered(0, 10), numbered(1, 10)...)...)
		await(t, "the follower's commit to be held", late.caught)
		place.cut()
		f.produce(t, append(numbered(0, 10), numbered(1, 10)...)...)
		f.awaitConsumed(t, 2*time.Minute)
		close(late.release)
		await(t, "the first commit to arrive", late.sent)
		if !f.consumed(t) {
			t.Errorf("the late commit was taken: %+v", f.positions(t))
		}
		if said := log.String(); !strings.Contains(said, "joined the generation again in which a commit got no answer") {
			t.Error("the follower did not come back into its generation, so nothing was put to the test")
		}
	})
}

// talkative is a handler that commits more metadata than brokers keep.
type talkative struct{ *consumers.Partition }

func (h *talkative) Open(_ context.Context, p *consumers.Partition) (consumers.BatchPartition, error) {
	return &talkative{p}, nil
}

func (h *talkative) Begin() consumers.Batch { return &tally{} }

func (h *talkative) End(consumers.Batch) {}

func (h *talkative) Write(ctx context.Context, _ consumers.Batch, r consumers.Range) error {
	return h.Commit(ctx, r.To, strings.Repeat("x", 5000))
}

// A tally is a batch that counts.
type tally struct{ rows int }

func (b *tally) Add(*events.Record) { b.rows++ }

func (b *tally) Close() {}

func (b *tally) Rows() int { return b.rows }

func (b *tally) Bytes() int64 { return int64(b.rows) }

func TestCommit_MetadataTooLargeStopsThePartition(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedApacheKafka(t), 1)
	f.produce(t, numbered(0, 3)...)
	m := f.join(t, &talkative{})
	eventually(t, "the partition stops", 2*time.Minute, func() bool { return m.report().State == health.Stopped })
	for _, word := range []string{f.topic + "/0", " bytes of metadata", "offset.metadata.max.bytes"} {
		if r := m.report(); !strings.Contains(r.Reason, word) {
			t.Errorf("the reason does not name %q: %s", word, r.Reason)
		}
	}
	if n := m.metric(t, "tenantflow_partition_stopped", map[string]string{"topic": f.topic, "partition": "0", "kind": "offset_metadata_too_large"}); n != 1 {
		t.Errorf("the metric says %v", n)
	}
}
