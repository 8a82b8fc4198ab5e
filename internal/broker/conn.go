// Package broker makes connections to Kafka brokers, with the TLS and SASL settings of a kafka.Transport, and sends
// requests on them one at a time.
//
// It is for what kafka-go's Transport does not report: whether a request that failed may have been sent, and what a broker
// says now instead of up to six seconds ago (the Transport answers metadata requests from a cache). An error of Dial,
// Connect, ConnectAny or Coordinator means that nothing of the caller's request was sent; after an error of RoundTrip it
// may have been.
package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
)

// dialTimeout bounds connecting, TLS, SASL and the look at the broker's versions together, where the transport does not say.
const dialTimeout = 10 * time.Second

func withTimeout(ctx context.Context, t *kafka.Transport) (context.Context, context.CancelFunc) {
	timeout := t.DialTimeout
	if timeout == 0 {
		timeout = dialTimeout
	}
	return context.WithTimeout(ctx, timeout)
}

// Dial connects to the broker at addr, HOST:PORT, and authenticates. The TLS handshake takes place with the first bytes
// that are sent.
func Dial(ctx context.Context, t *kafka.Transport, addr string) (net.Conn, error) {
	ctx, cancel := withTimeout(ctx, t)
	defer cancel()
	connect := t.Dial
	if connect == nil {
		connect = (&net.Dialer{}).DialContext
	}
	c, err := connect(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if t.TLS != nil {
		config := t.TLS
		if config.ServerName == "" {
			config = config.Clone()
			if config.ServerName, _, err = net.SplitHostPort(addr); err != nil {
				_ = c.Close()
				return nil, err
			}
		}
		c = tls.Client(c, config)
	}
	if t.SASL != nil {
		if err := Authenticate(ctx, c, t.SASL, t.ClientID, addr); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("authenticate at %s: %w", addr, err)
		}
	}
	return c, nil
}

// Authenticate goes through the SASL exchange of a mechanism on a new connection to the broker at addr, HOST:PORT.
func Authenticate(ctx context.Context, c net.Conn, mechanism sasl.Mechanism, clientID, addr string) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	pc := protocol.NewConn(c, clientID)
	pc.SetVersions(map[protocol.ApiKey]int16{protocol.SaslHandshake: 1, protocol.SaslAuthenticate: 1})
	answer, err := pc.RoundTrip(&saslhandshake.Request{Mechanism: mechanism.Name()})
	if err != nil {
		return err
	}
	if res, ok := answer.(*saslhandshake.Response); ok && res.ErrorCode != 0 {
		return kafka.Error(res.ErrorCode)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	session, state, err := mechanism.Start(sasl.WithMetadata(ctx, &sasl.Metadata{Host: host, Port: number}))
	if err != nil {
		return err
	}
	for done := false; !done; {
		answer, err := pc.RoundTrip(&saslauthenticate.Request{AuthBytes: state})
		if errors.Is(err, io.EOF) {
			return kafka.SASLAuthenticationFailed // some brokers say no by hanging up
		}
		if err != nil {
			return err
		}
		res, ok := answer.(*saslauthenticate.Response)
		if !ok {
			return fmt.Errorf("unexpected answer %T", answer)
		}
		if res.ErrorCode != 0 {
			return fmt.Errorf("%w: %s", kafka.Error(res.ErrorCode), res.ErrorMessage)
		}
		if done, state, err = session.Next(ctx, res.AuthBytes); err != nil {
			return err
		}
	}
	return c.SetDeadline(time.Time{})
}

// A Conn is a connection to one broker, for one goroutine. It has at most one request under way.
type Conn struct {
	net net.Conn
	pc  *protocol.Conn
}

// Connect connects to the broker at addr, HOST:PORT, authenticates, and negotiates the versions of the requests that
// both sides know.
func Connect(ctx context.Context, t *kafka.Transport, addr string) (*Conn, error) {
	ctx, cancel := withTimeout(ctx, t)
	defer cancel()
	raw, err := Dial(ctx, t, addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{net: raw, pc: protocol.NewConn(raw, t.ClientID)}
	if err := c.negotiate(ctx); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("ask the broker at %s for its versions: %w", addr, err)
	}
	return c, nil
}

func (c *Conn) negotiate(ctx context.Context) error {
	answer, err := c.RoundTrip(ctx, new(apiversions.Request))
	if err != nil {
		return err
	}
	res, ok := answer.(*apiversions.Response)
	switch {
	case !ok:
		return fmt.Errorf("unexpected answer %T", answer)
	case res.ErrorCode != 0:
		return kafka.Error(res.ErrorCode)
	}
	versions := map[protocol.ApiKey]int16{}
	for _, k := range res.ApiKeys {
		key := protocol.ApiKey(k.ApiKey)
		versions[key] = key.SelectVersion(k.MinVersion, k.MaxVersion)
	}
	c.pc.SetVersions(versions)
	return nil
}

// ConnectAny connects to one of the brokers at these addresses.
func ConnectAny(ctx context.Context, t *kafka.Transport, addrs []string) (*Conn, error) {
	var failed []error
	for _, i := range rand.Perm(len(addrs)) {
		c, err := Connect(ctx, t, addrs[i])
		if err == nil {
			return c, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// Coordinator connects to the coordinator of a consumer group, which one of the brokers at addrs names. A kafka.Error: the
// cluster has none for the group at the moment.
func Coordinator(ctx context.Context, t *kafka.Transport, addrs []string, group string) (*Conn, error) {
	c, err := ConnectAny(ctx, t, addrs)
	if err != nil {
		return nil, fmt.Errorf("find the coordinator of group %s: %w", group, err)
	}
	defer func() { _ = c.Close() }()
	answer, err := c.RoundTrip(ctx, &findcoordinator.Request{Key: group})
	if err != nil {
		return nil, fmt.Errorf("find the coordinator of group %s: %w", group, err)
	}
	res, ok := answer.(*findcoordinator.Response)
	switch {
	case !ok:
		return nil, fmt.Errorf("find the coordinator of group %s: unexpected answer %T", group, answer)
	case res.ErrorCode != 0:
		return nil, fmt.Errorf("find the coordinator of group %s: %w", group, kafka.Error(res.ErrorCode))
	}
	coordinator, err := Connect(ctx, t, net.JoinHostPort(res.Host, strconv.Itoa(int(res.Port))))
	if err != nil {
		return nil, fmt.Errorf("connect to the coordinator of group %s: %w", group, err)
	}
	return coordinator, nil
}

// RoundTrip sends a request and reads its answer, for as long as ctx lasts. After an error the broker may have the request,
// or may still get it, and the connection is of no more use.
func (c *Conn) RoundTrip(ctx context.Context, req protocol.Message) (protocol.Message, error) {
	deadline, _ := ctx.Deadline() // without one: none
	if err := c.net.SetDeadline(deadline); err != nil {
		return nil, err
	}
	// A deadline that is over ends what the connection is doing, which has no other way to notice.
	stop := context.AfterFunc(ctx, func() { _ = c.net.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	res, err := c.pc.RoundTrip(req)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return res, err
}

// Close closes the connection.
func (c *Conn) Close() error { return c.net.Close() }
