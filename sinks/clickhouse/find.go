package clickhouse

import (
	"context"
	_ "embed"
	"fmt"
	"math"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
)

var (
	//go:embed queries/find.sql
	findSQL string
	//go:embed queries/find_identity.sql
	findIdentitySQL string
)

// A Match is an event of a block that the table holds already.
type Match struct {
	Row       int  // of the block
	Same      bool // everything stored is equal; otherwise only the identity is
	Topic     string
	Partition int
	Offset    int64 // where the stored event came from
}

// Find looks up rows of b in the table by their identity together with company, user and timestamp. It is exact: it
// finds every stored event with the same of these, however old. One query, whatever the number of rows.
func (s *Store) Find(ctx context.Context, b *Block, rows []int) ([]Match, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	keys, err := b.keys(rows)
	if err != nil {
		return nil, fmt.Errorf("look up %d events: %w", len(rows), err)
	}
	oldest, newest := b.span(rows)
	return s.find(ctx, keys, findSQL, oldest, newest)
}

// FindIdentity looks up rows of b by their identity alone among the events of one partition from an offset on. The
// table is not ordered for that, so it is meant for few rows and for offsets that are recent.
func (s *Store) FindIdentity(ctx context.Context, topic string, partition int, from int64, b *Block, rows []int) ([]Match, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	keys, err := b.keys(rows)
	if err != nil {
		return nil, fmt.Errorf("look up %d identities: %w", len(rows), err)
	}
	return s.find(ctx, keys, findIdentitySQL, topic, partition, from)
}

// find runs a look-up whose columns are those of a match. The end row behind its matches makes sure that an answer that
// was cut off is not taken for a whole one: every match that is not seen would be stored a second time.
func (s *Store) find(ctx context.Context, keys *ext.Table, query string, args ...any) ([]Match, error) {
	const end = math.MaxUint32 // the number of the end row
	rows, err := s.conn.Query(wholeContext(ctx, chgo.WithExternalTable(keys)), query, args...)
	if err != nil {
		return nil, fmt.Errorf("look up events in usage_tracking: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	var (
		found     []Match
		n         uint32
		same      bool
		topic     string
		partition uint16
		offset    int64
		whole     bool
	)
	for rows.Next() {
		if err := rows.Scan(&n, &same, &topic, &partition, &offset); err != nil {
			return nil, fmt.Errorf("look up events in usage_tracking: %w", err)
		}
		if n == end {
			whole = true
			continue
		}
		found = append(found, Match{Row: int(n), Same: same, Topic: topic, Partition: int(partition), Offset: offset})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look up events in usage_tracking: %w", err)
	}
	if !whole {
		return nil, fmt.Errorf("look up events in usage_tracking: %w", errCutOff)
	}
	return found, nil
}

// span is the oldest and the newest timestamp of some rows.
func (b *Block) span(rows []int) (oldest, newest int64) {
	oldest, newest = math.MaxInt64, math.MinInt64
	for _, r := range rows {
		oldest, newest = min(oldest, b.timestamp[r]), max(newest, b.timestamp[r])
	}
	return oldest, newest
}

// keys is the external table that travels with a look-up: the rows with everything that is compared. Which usage a void takes back is
// not among it: its id follows from that.
func (b *Block) keys(rows []int) (*ext.Table, error) {
	return b.keysBy(rows, func(i int) (id, source string, sign int8) {
		return string(b.eventID.at(i)), string(b.source.at(i)), b.sign(i)
	})
}

// keysBy is the table of keys for rows whose identity and sign are given.
func (b *Block) keysBy(rows []int, identity func(i int) (id, source string, sign int8)) (*ext.Table, error) {
	ids, sources, signs := make([]string, len(rows)), make([]string, len(rows)), make([]int8, len(rows))
	n := make([]uint32, len(rows))
	points := make([]uint32, len(rows))
	at := make([]int64, len(rows))
	processing := make([]int64, len(rows))
	revenue := make([]int64, len(rows))
	for i, r := range rows {
		n[i] = uint32(r) // #nosec G115 -- an index into a block
		ids[i], sources[i], signs[i] = identity(r)
		points[i] = b.points[r]
		at[i] = b.timestamp[r]
		processing[i] = b.processing[r]
		revenue[i] = b.revenue[r]
	}
	values := func(value func(int) []byte) []string {
		out := make([]string, len(rows))
		for i, r := range rows {
			out[i] = string(value(r))
		}
		return out
	}
	columns := []struct {
		name   string
		kind   column.Type
		values any
	}{
		{"n", "UInt32", n},
		{"event_id", "String", ids},
		{"source", "String", sources},
		{"sign", "Int8", signs},
		{"user_id", "String", values(b.user.at)},
		{"company_id", "String", values(b.company.at)},
		{"at", "DateTime64(3, 'UTC')", at},
		{"tier", "String", values(b.tier.at)},
		{"service", "String", values(b.service.at)},
		{"endpoint", "String", values(b.endpoint.at)},
		{"points", "UInt32", points},
		{"processing", "Int64", processing},
		{"period", "String", values(b.period.at)},
		{"revenue", "Int64", revenue},
	}
	table, err := ext.NewTable("keys")
	if err != nil {
		return nil, err
	}
	for i, c := range columns {
		if err := ext.Column(c.name, c.kind)(table); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		if _, err := table.Block().Columns[i].Append(c.values); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return table, nil
}
