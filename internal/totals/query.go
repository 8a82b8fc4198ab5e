package totals

import (
	"context"
	"errors"
	"maps"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"tenantflow/sinks/clickhouse"
)

// Pinned gives options whose every statement carries the settings that an exact answer rests on. A user's profile may
// have others: with an overflow mode of break, a query that hits a limit answers with what it has, and 200.
func Pinned(options *chgo.Options) *chgo.Options {
	own := *options
	own.Settings = maps.Clone(options.Settings)
	if own.Settings == nil {
		own.Settings = chgo.Settings{}
	}
	maps.Copy(own.Settings, clickhouse.WholeAnswers())
	own.Settings["async_insert"] = 0
	return &own
}

// spilling keeps the server's memory bounded: what is sorted or grouped goes to its disk beyond this.
func spilling() chgo.Settings {
	const most = 1 << 30
	return chgo.Settings{"max_bytes_before_external_sort": most, "max_bytes_before_external_group_by": most}
}

// Spill is for queries that sort or group many rows.
func Spill(ctx context.Context) context.Context {
	return chgo.Context(ctx, chgo.WithSettings(spilling()))
}

// LongQuery is Spill for statements that name many rows or keys, with further settings.
func LongQuery(ctx context.Context, more chgo.Settings) context.Context {
	s := spilling()
	s["max_query_size"] = 64 << 20
	s["max_ast_elements"], s["max_expanded_ast_elements"] = 1_000_000, 2_000_000
	maps.Copy(s, more)
	return chgo.Context(ctx, chgo.WithSettings(s))
}

// ErrCut is the error of an answer that stopped before its end row.
var ErrCut = errors.New("the answer was cut off: its end row is missing")

// An End is the row that closes an answer. An answer that a proxy or a dying server cuts at the border of two blocks
// looks whole; with a row that sorts behind all others it does not.
type End struct {
	Row   string // a value for each column of the query, of its type
	Order string // how the rows before it are sorted; empty: anyhow
}

// An Answer is the rows of a query.
type Answer struct {
	rows  driver.Rows
	ended bool
	err   error
}

// Ask runs a query whose answer ends with an end row.
func Ask(ctx context.Context, conn driver.Conn, query string, end End, args ...any) (*Answer, error) {
	order := "answer_ends"
	if end.Order != "" {
		order += ", " + end.Order
	}
	rows, err := conn.Query(ctx, "SELECT * FROM (SELECT *, toUInt8(0) AS answer_ends FROM ("+query+
		") UNION ALL SELECT "+end.Row+", toUInt8(1) AS answer_ends) ORDER BY "+order, args...)
	if err != nil {
		return nil, err
	}
	return &Answer{rows: rows}, nil
}

// Next reads the next row. It is false behind the last one and after an error, which Close returns.
func (a *Answer) Next(dest ...any) bool {
	if a.ended || a.err != nil {
		return false
	}
	if !a.rows.Next() {
		if a.err = a.rows.Err(); a.err == nil {
			a.err = ErrCut
		}
		return false
	}
	var last uint8
	if a.err = a.rows.Scan(append(dest, &last)...); a.err != nil {
		return false
	}
	a.ended = last == 1
	return !a.ended
}

// Err is the error that ended the answer, if one did.
func (a *Answer) Err() error { return a.err }

// Close ends the answer, read to its end or not, and returns the error that ended it before.
func (a *Answer) Close() error {
	err := a.rows.Close()
	if a.err != nil {
		return a.err
	}
	return err
}
