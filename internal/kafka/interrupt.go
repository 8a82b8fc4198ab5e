package kafka

import (
	"context"
	"net"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
)

// leaveTimeout bounds what a member still says to its broker when it has to stop: that it leaves.
const leaveTimeout = 2 * time.Second

// joining is the connections of a group membership. A member that joins waits until every other member has joined too, up to the
// rebalance timeout, and kafka-go's Close waits for the answer. After interrupt no request over these connections, or over
// later ones, lasts longer than leaveTimeout.
type joining struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	before func(context.Context) error // before a connection is used
	over   context.Context             // ends with interrupt
	end    context.CancelFunc

	mu    sync.Mutex
	conns map[*joinConn]struct{}
	until time.Time // the latest deadline that a connection may have; zero: any
}

// newJoining returns a dialer that does what the given one does (nil: kafka-go's default), and the connections that it makes. None is
// used before the given function has returned nil; after interrupt it is not called.
func newJoining(d *kafkago.Dialer, before func(context.Context) error) (*kafkago.Dialer, *joining) {
	if d == nil {
		d = kafkago.DefaultDialer
	}
	own := *d
	j := &joining{dial: d.DialFunc, before: before, conns: map[*joinConn]struct{}{}}
	j.over, j.end = context.WithCancel(context.Background())
	if j.dial == nil {
		j.dial = (&net.Dialer{LocalAddr: d.LocalAddr, FallbackDelay: d.FallbackDelay, KeepAlive: d.KeepAlive}).DialContext
	}
	own.DialFunc = j.connect
	return &own, j
}

func (j *joining) connect(ctx context.Context, network, address string) (net.Conn, error) {
	dialing, cancel := j.dialing(ctx)
	conn, err := j.dial(dialing, network, address)
	cancel()
	if err != nil {
		return nil, err
	}
	if err := j.ready(); err != nil { // not bound by ctx: the time for a dial would be too short for it
		_ = conn.Close()
		return nil, err
	}
	c := &joinConn{Conn: conn, of: j}
	j.mu.Lock()
	j.conns[c] = struct{}{}
	j.mu.Unlock()
	return c, nil
}

// dialing bounds a dial as an interrupt bounds requests.
func (j *joining) dialing(ctx context.Context) (context.Context, context.CancelFunc) {
	j.mu.Lock()
	until := j.until
	j.mu.Unlock()
	if !until.IsZero() {
		return context.WithDeadline(ctx, until)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(j.over, func() { time.AfterFunc(leaveTimeout, cancel) })
	return ctx, func() { stop(); cancel() }
}

// ready calls the function to call before a connection is used.
func (j *joining) ready() error {
	if j.over.Err() != nil {
		return nil //nolint:nilerr // then it is not called
	}
	return j.before(j.over)
}

// interrupt bounds what is under way and all that follows.
func (j *joining) interrupt() {
	j.end()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.until = time.Now().Add(leaveTimeout)
	for c := range j.conns {
		_ = c.Conn.SetDeadline(time.Now()) // fails only where the connection is closed already
	}
}

// bound returns a deadline that is not later than it may be.
func (j *joining) bound(t time.Time) time.Time {
	if j.until.IsZero() || !t.IsZero() && t.Before(j.until) {
		return t
	}
	return j.until
}

// joinConn is one connection. Its deadline and the bound change under one lock, so that none is set after an interrupt which was
// computed before.
type joinConn struct {
	net.Conn
	of *joining
}

func (c *joinConn) SetDeadline(t time.Time) error { return c.set(c.Conn.SetDeadline, t) }

func (c *joinConn) SetReadDeadline(t time.Time) error { return c.set(c.Conn.SetReadDeadline, t) }

func (c *joinConn) SetWriteDeadline(t time.Time) error { return c.set(c.Conn.SetWriteDeadline, t) }

func (c *joinConn) set(deadline func(time.Time) error, t time.Time) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	return deadline(c.of.bound(t))
}

func (c *joinConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
