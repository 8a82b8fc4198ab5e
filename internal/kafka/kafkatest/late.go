package kafkatest

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/internal/engine/enginetest"
)

// A LateRequest holds back the first request that matches, as a network does that loses a segment and repeats it much
// later: its sender believes it is sent, and closing the connection does not take it back.
type LateRequest struct {
	match   func(request []byte) bool
	once    sync.Once
	Caught  chan struct{} // closed when the request is held
	Release chan struct{} // closed by the test
	Sent    chan struct{} // closed when the broker has answered it
}

// NewLateRequest holds back the first request whose bytes match.
func NewLateRequest(match func([]byte) bool) *LateRequest {
	return &LateRequest{match: match, Caught: make(chan struct{}), Release: make(chan struct{}), Sent: make(chan struct{})}
}

// IsRequest reports whether bytes on the wire begin with a request of this kind: size, then key.
func IsRequest(b []byte, key kmsg.Key) bool {
	return len(b) > 8 && binary.BigEndian.Uint16(b[4:]) == uint16(key)
}

// OfDone matches the commit of what is done, alone: it has no handler's metadata behind the mark.
func OfDone(topic string) func([]byte) bool {
	return func(b []byte) bool {
		return IsRequest(b, kmsg.OffsetCommit) && bytes.Contains(b, []byte(topic)) && !bytes.Contains(b, []byte("tf1 ")) && !bytes.Contains(b, []byte("tf2 "))
	}
}

// Dial connects to a broker.
func (l *LateRequest) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &lateConn{Conn: c, late: l, gaveUp: make(chan struct{})}, nil
}

type lateConn struct {
	net.Conn
	late   *LateRequest
	mu     sync.Mutex
	held   bool
	over   bool          // its deadline was over when it was set
	gaveUp chan struct{} // closed when the sender waits for the answer no more
	once   sync.Once
}

func (c *lateConn) giveUp() { c.once.Do(func() { close(c.gaveUp) }) }

// hold reports whether the request that is to be sent now is the one that is held back.
func (c *lateConn) hold() (held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.late.once.Do(func() { c.held, held = true, true })
	}
	return held
}

func (c *lateConn) Write(b []byte) (int, error) {
	l := c.late
	if !l.match(b) || !c.hold() {
		return c.Conn.Write(b)
	}
	b = bytes.Clone(b)
	close(l.Caught)
	go func() {
		defer close(l.Sent)
		<-l.Release
		_ = c.Conn.SetDeadline(time.Now().Add(enginetest.Patience))
		_, _ = c.Conn.Write(b)
		_, _ = c.Conn.Read(make([]byte, 1024)) // the broker has judged it
		_ = c.Conn.Close()
	}()
	return len(b), nil
}

// SetDeadline does not reach a connection whose request is held. One that is over ends the wait for the answer.
func (c *lateConn) SetDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = !at.IsZero() && !at.After(time.Now())
	if !c.held {
		return c.Conn.SetDeadline(at)
	}
	if c.over {
		c.giveUp()
	}
	return nil
}

func (c *lateConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	held := c.held
	c.mu.Unlock()
	if held { // no answer comes before the request arrives; its sender does not wait that long
		select {
		case <-c.late.Sent:
		case <-c.gaveUp:
		}
		return 0, net.ErrClosed
	}
	return c.Conn.Read(b)
}

func (c *lateConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		c.giveUp()
		return nil
	}
	return c.Conn.Close()
}
