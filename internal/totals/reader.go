package totals

import (
	"context"
	"fmt"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"tenantflow/sinks/clickhouse"
)

// A Reader answers questions about one company, or about few numbers of all, beside live traffic: each has an end row and two threads of the server. It may be used
// by several goroutines at once.
type Reader struct{ Conn driver.Conn }

// OpenReader makes a Reader. It does not connect yet: a ClickHouse that is away is the trouble of those who ask.
func OpenReader(options *chgo.Options) (*Reader, error) {
	own := Pinned(options)
	own.Settings["max_threads"] = 2 // a company's rows are few, and inserts need the rest of the server
	own.Settings["cancel_http_readonly_queries_on_client_close"] = 1
	conn, err := clickhouse.Connect(own)
	if err != nil {
		return nil, err
	}
	return &Reader{conn}, nil
}

// Close closes the connections.
func (r *Reader) Close() error { return r.Conn.Close() }

// Ping reports whether ClickHouse answers.
func (r *Reader) Ping(ctx context.Context) error {
	if err := r.Conn.Ping(ctx); err != nil {
		return fmt.Errorf("ask ClickHouse for an answer: %w", err)
	}
	return nil
}

// Each runs a query and calls keep for each of its rows, which has been read into dest. end is a value for each of its columns: see [End].
func (r *Reader) Each(ctx context.Context, query, end string, args, dest []any, keep func()) error {
	answer, err := Ask(ctx, r.Conn, query, End{Row: end}, args...)
	if err != nil {
		return err
	}
	for answer.Next(dest...) {
		keep()
	}
	return answer.Close()
}
