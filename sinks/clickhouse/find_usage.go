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

//go:embed queries/find_usage.sql
var findUsageSQL string

// A StoredUsage is a row of usage, apart from the key that it was found by.
type StoredUsage struct {
	Tier, Service, Endpoint string
	DataPoints              uint32
	ProcessingTime          int64 // in thousandths of a millisecond
	BillingPeriod           string
	Revenue                 int64 // in millionths of the currency unit

	Topic     string
	Partition int
	Offset    int64 // where the event came from
}

// FindUsage looks up usage by its keys, in one query: the stored row of each, nil where there is none. What takes usage back is none.
func (s *Store) FindUsage(ctx context.Context, wanted []EventKey) ([]*StoredUsage, error) {
	found := make([]*StoredUsage, len(wanted))
	if len(wanted) == 0 {
		return found, nil
	}
	fail := func(err error) ([]*StoredUsage, error) {
		return nil, fmt.Errorf("look up %d usage events: %w", len(wanted), err)
	}
	table, oldest, newest, err := keyTable(wanted)
	if err != nil {
		return fail(err)
	}
	rows, err := s.conn.Query(wholeContext(ctx, chgo.WithExternalTable(table)), findUsageSQL, oldest, newest)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	whole := false
	for rows.Next() {
		var n uint32
		var partition uint16
		var u StoredUsage
		if err := rows.Scan(&n, &u.Tier, &u.Service, &u.Endpoint, &u.DataPoints, &u.ProcessingTime, &u.BillingPeriod, &u.Revenue,
			&u.Topic, &partition, &u.Offset); err != nil {
			return fail(err)
		}
		switch {
		case n == math.MaxUint32: // the end row
			whole = true
		case found[n] == nil: // else it landed twice
			u.Partition = int(partition)
			found[n] = &u
		}
	}
	if err := rows.Err(); err != nil {
		return fail(err)
	}
	if !whole { // usage that is not seen would be taken for unknown
		return fail(errCutOff)
	}
	return found, nil
}

// keyTable is the external table that travels with the look-up, and the oldest and newest timestamp in it.
func keyTable(wanted []EventKey) (table *ext.Table, oldest, newest int64, err error) {
	n := make([]uint32, len(wanted))
	ids, sources := make([]string, len(wanted)), make([]string, len(wanted))
	users, companies := make([]string, len(wanted)), make([]string, len(wanted))
	at := make([]int64, len(wanted))
	oldest, newest = math.MaxInt64, math.MinInt64
	for i, k := range wanted {
		n[i] = uint32(i) // #nosec G115 -- an index into a few
		ids[i], sources[i], users[i], companies[i], at[i] = k.ID, k.Source, k.User, k.Company, k.Timestamp
		oldest, newest = min(oldest, k.Timestamp), max(newest, k.Timestamp)
	}
	if table, err = ext.NewTable("keys"); err != nil {
		return nil, 0, 0, err
	}
	for i, c := range []struct {
		name   string
		kind   column.Type
		values any
	}{{"n", "UInt32", n}, {"event_id", "String", ids}, {"source", "String", sources}, {"user_id", "String", users},
		{"company_id", "String", companies}, {"at", "DateTime64(3, 'UTC')", at}} {
		if err := ext.Column(c.name, c.kind)(table); err != nil {
			return nil, 0, 0, fmt.Errorf("column %s: %w", c.name, err)
		}
		if _, err := table.Block().Columns[i].Append(c.values); err != nil {
			return nil, 0, 0, fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return table, oldest, newest, nil
}
