package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// A DialFunc connects to HOST:PORT.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Dial makes a DialFunc that connects by another one and shakes hands, with the files as they are then. base may be nil. What
// goes wrong with TLS is an *[Error], also where the server refuses our certificate only after the handshake, as TLS 1.3 does.
func (s *Source) Dial(connect DialFunc, base *tls.Config) DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := connect(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = addr
		}
		config, err := s.Config(base, host)
		if err != nil {
			_ = raw.Close()
			return nil, &Error{Peer: s.Peer().Name, Addr: addr, Wrong: err.Error(), Do: "mend the file, or name another", Early: true, Err: err}
		}
		c := &conn{Conn: tls.Client(raw, config), peer: s.Peer(), addr: addr, shown: len(config.Certificates) > 0}
		if err := c.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, Explain(c.peer, addr, c.shown, true, err)
		}
		return c, nil
	}
}

// Peer is who is on the other side.
func (s *Source) Peer() Peer {
	if s == nil {
		return Peer{Name: "the server"}
	}
	return s.peer
}

// conn explains what the server says about our certificate.
type conn struct {
	*tls.Conn
	peer  Peer
	addr  string
	shown bool // we have a certificate
	heard atomic.Bool
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, c.explain(err)
}

// alertWait is how long a refusal may take to be read that a failed write hints at. It has arrived before the end of the
// connection has.
const alertWait = 100 * time.Millisecond

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil && !c.heard.Load() && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		// In TLS 1.3 a server that refuses our certificate says so after the handshake and hangs up. There is no reader yet,
		// so the reason would be lost behind the broken connection.
		_ = c.SetReadDeadline(time.Now().Add(alertWait))
		if _, refused := c.Conn.Read(make([]byte, 1)); isAlert(refused) {
			return n, c.explain(refused)
		}
	}
	return n, c.explain(err)
}

func (c *conn) explain(err error) error {
	if !isAlert(err) {
		return err
	}
	// go-redis takes off the outermost error of what it asks a new connection.
	return &outermost{Explain(c.peer, c.addr, c.shown, false, err)}
}

// outermost is an error that may be taken off.
type outermost struct{ error }

func (e *outermost) Unwrap() error { return e.error }

// isAlert reports whether the other side has ended the connection by an alert.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == remoteError
}
