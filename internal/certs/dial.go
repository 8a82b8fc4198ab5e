package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
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
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.explain(err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.explain(err)
}

func (c *conn) explain(err error) error {
	var op *net.OpError
	if err == nil || !errors.As(err, &op) || op.Op != remoteError {
		return err
	}
	return Explain(c.peer, c.addr, c.shown, false, err)
}
