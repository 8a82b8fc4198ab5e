package clickhouse

import (
	"context"
	"fmt"
	"math"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
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
	oldest, newest := int64(math.MaxInt64), int64(math.MinInt64)
	for _, r := range rows {
		oldest, newest = min(oldest, b.timestamp[r]), max(newest, b.timestamp[r])
	}
	keys, err := b.keys(rows)
	if err != nil {
		return nil, fmt.Errorf("look up %d events: %w", len(rows), err)
	}
	// The key of the table finds the rows; the join finds which event each one is, and compares the rest.
	// Decimals are compared by their digits: multiplying large ones into integers would overflow.
	return s.find(ctx, keys, `
SELECT k.n AS n,
       toBool(stored.subscription_tier = k.tier AND stored.service_name = k.service AND stored.api_endpoint = k.endpoint
           AND stored.data_points_consumed = k.points AND reinterpretAsInt64(stored.processing_time_ms) = k.processing
           AND stored.billing_period = k.period AND reinterpretAsInt64(stored.revenue_attributed) = k.revenue) AS same,
       toString(stored._topic) AS topic, stored._partition AS partition, stored._offset AS offset
FROM (
    SELECT * FROM usage_tracking
    WHERE (company_id, user_id, timestamp, event_id) IN (SELECT company_id, user_id, at, event_id FROM keys)
      AND timestamp >= fromUnixTimestamp64Milli(toInt64(?), 'UTC') AND timestamp <= fromUnixTimestamp64Milli(toInt64(?), 'UTC')
) AS stored
INNER JOIN keys AS k
    ON stored.company_id = k.company_id AND stored.user_id = k.user_id AND stored.timestamp = k.at
   AND stored.event_id = k.event_id AND stored.event_source = k.source`, oldest, newest)
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
	return s.find(ctx, keys, `
SELECT k.n AS n, false AS same, toString(stored._topic) AS topic, stored._partition AS partition, stored._offset AS offset
FROM (
    SELECT event_id, event_source, _topic, _partition, _offset FROM usage_tracking
    WHERE _topic = ? AND _partition = ? AND _offset >= ? AND event_id IN (SELECT event_id FROM keys)
) AS stored
INNER JOIN keys AS k ON stored.event_id = k.event_id AND stored.event_source = k.source`, topic, partition, from)
}

// find runs a look-up whose columns are those of a match. The end row behind its matches makes sure that an answer that
// was cut off is not taken for a whole one: every match that is not seen would be stored a second time.
func (s *Store) find(ctx context.Context, keys *ext.Table, query string, args ...any) ([]Match, error) {
	const end = math.MaxUint32
	query = fmt.Sprintf("SELECT n, same, topic, partition, offset FROM (%s\nUNION ALL SELECT toUInt32(%d), false, '', toUInt16(0), toInt64(0)) ORDER BY n", query, uint32(end))
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

// keys is the external table that travels with a look-up: the rows with everything that is compared.
func (b *Block) keys(rows []int) (*ext.Table, error) {
	n := make([]uint32, len(rows))
	points := make([]uint32, len(rows))
	at := make([]int64, len(rows))
	processing := make([]int64, len(rows))
	revenue := make([]int64, len(rows))
	for i, r := range rows {
		n[i] = uint32(r) // #nosec G115 -- an index into a block
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
		{"event_id", "String", values(b.eventID.at)},
		{"source", "String", values(b.source.at)},
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
