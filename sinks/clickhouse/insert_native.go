package clickhouse

import (
	"context"
	"fmt"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/shopspring/decimal"
)

// sendNative inserts rows of b as one block over the native protocol, with the settings that ctx carries.
//
// Over this protocol the query, and with it the now() that the deadline is compared with, begins before the rows are
// sent. A process that is stopped between the two could send them long after their deadline, and they would be taken.
// That is why settling waits not only for the deadline but also until no query with the intent's mark runs: the server
// lists the query from before it asks for rows until the last view is fed.
//
// An error before a connection was there is known to have sent nothing. All others but the server's own leave the
// outcome unknown, also where the rows can't have been sent yet: to wait is dearer than to know, but never wrong.
func (s *Store) sendNative(ctx context.Context, b *Block, rows []int32, topic string, partition int, insertBy time.Time) error {
	//nolint:contextcheck // undated is ctx: it ends with it and carries its values
	batch, err := s.conn.PrepareBatch(undated{ctx}, "INSERT INTO usage_tracking ("+usageColumns+")")
	if err != nil {
		return err
	}
	if err := fillBatch(batch, b.columns(rows, topic, partition, insertBy)); err != nil {
		// Abort closes the connection; Close would end the insert in order, as one of no rows.
		_ = batch.Abort() // fails only after Send
		return err
	}
	// One Send and never Flush: each would be a block of its own, and the token is for one. Never a second Send, either:
	// clickhouse-go would begin the insert anew on another connection. The first one never does.
	return batch.Send()
}

// undated hides a context's deadline, not its end. From a deadline clickhouse-go makes a max_execution_time of its own,
// six seconds later than the one that the settings say, and lets it win.
type undated struct{ context.Context }

func (undated) Deadline() (time.Time, bool) { return time.Time{}, false }

// A typedColumn is values in the order of rows, as clickhouse-go takes them for a column of that type.
type typedColumn struct {
	name, kind string
	values     any
}

// columns are rows of b as usageColumns names them.
func (b *Block) columns(rows []int32, topic string, partition int, insertBy time.Time) []typedColumn {
	const (
		word     = "LowCardinality(String)"
		instant  = "DateTime64(3, 'UTC')"
		duration = "Decimal(18, 3)"
		money    = "Decimal(18, 6)"
	)
	at := make([]time.Time, len(rows))
	points := make([]uint32, len(rows))
	offset := make([]int64, len(rows))
	for i, r := range rows {
		at[i] = time.UnixMilli(b.timestamp[r])
		points[i] = b.points[r]
		offset[i] = b.offset[r]
	}
	return []typedColumn{
		{"event_id", "String", b.eventID.pick(rows)},
		{"event_source", word, b.source.pick(rows)},
		{"user_id", "String", b.user.pick(rows)},
		{"company_id", "String", b.company.pick(rows)},
		{"timestamp", instant, at},
		{"subscription_tier", word, b.tier.pick(rows)},
		{"service_name", word, b.service.pick(rows)},
		{"api_endpoint", word, b.endpoint.pick(rows)},
		{"data_points_consumed", "UInt32", points},
		{"processing_time_ms", duration, decimals(b.processing, rows, -3)},
		{"billing_period", word, b.period.pick(rows)},
		{"revenue_attributed", money, decimals(b.revenue, rows, -6)},
		{"_topic", word, repeated(topic, len(rows))},
		{"_partition", "UInt16", repeated(uint16(partition), len(rows))}, // #nosec G115 -- checked when the partition is opened
		{"_offset", "Int64", offset},
		{"_insert_by", instant, repeated(insertBy, len(rows))},
	}
}

// fillBatch puts the columns into a batch whose columns must be the same ones. The client would convert to whatever
// the server has, and drop digits silently where that has fewer.
func fillBatch(batch driver.Batch, columns []typedColumn) error {
	mismatch := func(format string, args ...any) error {
		return &chgo.Exception{Code: codeTypeMismatch, Message: "usage_tracking is not the table that the migrations make: " + fmt.Sprintf(format, args...)}
	}
	theirs := batch.Columns()
	if len(theirs) != len(columns) {
		return mismatch("%d columns instead of %d", len(theirs), len(columns))
	}
	for i, c := range columns {
		if name, kind := theirs[i].Name(), string(theirs[i].Type()); name != c.name || kind != c.kind {
			return mismatch("column %s of type %s instead of %s of type %s", name, kind, c.name, c.kind)
		}
		if err := batch.Column(i).Append(c.values); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return nil
}

// pick copies the values of rows, all into one piece of memory.
func (t *text) pick(rows []int32) []string {
	all := string(t.bytes)
	out := make([]string, len(rows))
	for i, r := range rows {
		start := uint32(0)
		if r > 0 {
			start = t.ends[r-1]
		}
		out[i] = all[start:t.ends[r]]
	}
	return out
}

func (d *dictionary) pick(rows []int32) []string {
	values := make([]string, len(d.values.ends))
	for i := range values {
		values[i] = string(d.values.at(i))
	}
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = values[d.keys[r]]
	}
	return out
}

// decimals are the values times 10^exponent, exactly.
func decimals(coefficients []int64, rows []int32, exponent int32) []decimal.Decimal {
	out := make([]decimal.Decimal, len(rows))
	for i, r := range rows {
		out[i] = decimal.New(coefficients[r], exponent)
	}
	return out
}

func repeated[T any](v T, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = v
	}
	return out
}
