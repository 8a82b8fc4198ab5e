package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"tenantflow/internal/certs"
	"tenantflow/internal/retry"
)

// Connect returns connections to ClickHouse whose errors say what is true when there is no answer: the driver's own have the whole URL
// of the request in them, with every setting, and where the server hangs they advise more connections. Nothing is sent yet.
func Connect(options *chgo.Options) (driver.Conn, error) {
	conn, err := chgo.Open(options)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	return &connection{conn, strings.Join(options.Addr, ",")}, nil
}

type connection struct {
	driver.Conn
	addr string
}

func (c *connection) Query(ctx context.Context, query string, args ...any) (driver.Rows, error) {
	began := time.Now()
	r, err := c.Conn.Query(ctx, query, args...)
	if err != nil {
		return nil, c.explain(err, began)
	}
	return &askedRows{r, c, began}, nil
}

func (c *connection) QueryRow(ctx context.Context, query string, args ...any) driver.Row {
	began := time.Now()
	return &askedRow{c.Conn.QueryRow(ctx, query, args...), c, began}
}

func (c *connection) Exec(ctx context.Context, query string, args ...any) error {
	began := time.Now()
	return c.explain(c.Conn.Exec(ctx, query, args...), began)
}

func (c *connection) InsertFormat(ctx context.Context, format, query string, body io.Reader) error {
	began := time.Now()
	return c.explain(c.Conn.InsertFormat(ctx, format, query, body), began)
}

type askedRows struct {
	driver.Rows
	c     *connection
	began time.Time
}

func (r *askedRows) Err() error             { return r.c.explain(r.Rows.Err(), r.began) }
func (r *askedRows) Close() error           { return r.c.explain(r.Rows.Close(), r.began) }
func (r *askedRows) Scan(dest ...any) error { return r.c.explain(r.Rows.Scan(dest...), r.began) }

type askedRow struct {
	driver.Row
	c     *connection
	began time.Time
}

func (r *askedRow) Err() error             { return r.c.explain(r.Row.Err(), r.began) }
func (r *askedRow) Scan(dest ...any) error { return r.c.explain(r.Row.Scan(dest...), r.began) }

// A connectionError is an error of the way to the server and back, in other words.
type connectionError struct {
	text string
	err  error
}

func (e *connectionError) Error() string { return e.text }

func (e *connectionError) Unwrap() error { return e.err }

// explain puts an error of the connection in words: what the server itself has said stays.
func (c *connection) explain(err error, began time.Time) error {
	var said *chgo.Exception
	if err == nil || errors.As(err, &said) {
		return err
	}
	took := retry.Waited(began)
	var request *url.Error
	var slow net.Error
	var secure *certs.Error
	switch sent := errors.As(err, &request); {
	case errors.As(err, &secure):
		return &connectionError{secure.Error(), err}
	case !sent && errors.Is(err, chgo.ErrAcquireConnTimeout):
		// All of them are taken. There are as many as inserts and look-ups need, so those have no answer.
		return &connectionError{fmt.Sprintf("no answer within %s from ClickHouse at %s (all connections wait for one)", took, c.addr), err}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, chgo.ErrAcquireConnTimeout), errors.As(err, &slow) && slow.Timeout():
		return &connectionError{fmt.Sprintf("no answer within %s from ClickHouse at %s", took, c.addr), err}
	case sent:
		return &connectionError{fmt.Sprintf("ask ClickHouse at %s: %v", c.addr, request.Err), err}
	}
	return err
}
