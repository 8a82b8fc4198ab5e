package clickhouse

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
)

var (
	//go:embed identities.sql
	identitiesSQL string
	//go:embed daily_totals.sql
	dailyTotalsSQL string
	//go:embed daily_rows.sql
	dailyRowsSQL string
)

// An EventKey is what a row of a block is looked up by.
type EventKey struct {
	Source, ID    string
	Company, User string
	Timestamp     int64 // milliseconds since the epoch
}

// Key gives the key of row i.
func (b *Block) Key(i int) EventKey {
	return EventKey{
		Source: string(b.source.at(i)), ID: string(b.eventID.at(i)),
		Company: string(b.company.at(i)), User: string(b.user.at(i)), Timestamp: b.timestamp[i],
	}
}

// Identities calls each with the offset and the identity hash of the rows that come from the offsets [from, to) of a
// partition, ordered by offset. Rows whose timestamp lies outside of oldest to newest (milliseconds since the epoch, both
// included) may be left out: months without any are not read.
func (s *Store) Identities(ctx context.Context, topic string, partition int, from, to, oldest, newest int64, each func(offset int64, identity uint64)) error {
	const end = int64(-1)
	fail := func(err error) error {
		return fmt.Errorf("read which events are stored from %s/%d [%d, %d): %w", topic, partition, from, to, err)
	}
	rows, err := s.conn.Query(wholeContext(ctx), identitiesSQL, topic, partition, from, to, oldest, newest)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	whole := false
	for rows.Next() {
		var offset int64
		var identity uint64
		if err := rows.Scan(&offset, &identity); err != nil {
			return fail(err)
		}
		if offset == end {
			whole = true
			continue
		}
		each(offset, identity)
	}
	if err := rows.Err(); err != nil {
		return fail(err)
	}
	if !whole {
		return fail(errCutOff)
	}
	return nil
}

// A dayKey is a key of the daily totals.
type dayKey struct {
	company, user, tier string
	day                 int64 // since the epoch
}

// StillCounted counts those of some rows of b, which are not in the table, that the daily totals count all the same: rows that
// were deleted by hand. Where a day's total is higher than its rows by some calls, it counts as many of the given rows of that day at most;
// where it is lower, as many voids.
func (s *Store) StillCounted(ctx context.Context, b *Block, rows []int) (int64, error) {
	missing := map[dayKey]int64{}
	for _, i := range rows {
		missing[dayKey{string(b.company.at(i)), string(b.user.at(i)), string(b.tier.at(i)), dayOf(b.timestamp[i])}] += int64(b.sign(i))
	}
	if len(missing) == 0 {
		return 0, nil
	}
	days := make([]dayKey, 0, len(missing))
	for key := range missing {
		days = append(days, key)
	}
	// The totals first: a row is there before its share of the totals is, so a total that was read is no more than rows that
	// are read later, unless some were deleted.
	totals, err := s.daily(ctx, dailyTotalsSQL, days)
	if err != nil {
		return 0, fmt.Errorf("read the totals of %d days: %w", len(days), err)
	}
	stored, err := s.daily(ctx, dailyRowsSQL, days)
	if err != nil {
		return 0, fmt.Errorf("count the rows of %d days: %w", len(days), err)
	}
	var still int64
	for key, n := range missing {
		counted := totals[key] - stored[key]
		if n < 0 {
			n, counted = -n, -counted
		}
		still += min(n, max(0, counted))
	}
	return still, nil
}

func dayOf(ms int64) int64 { return time.UnixMilli(ms).Unix() / int64(24*time.Hour/time.Second) }

// daily runs a query over the given days that returns a number of calls for each.
func (s *Store) daily(ctx context.Context, query string, days []dayKey) (map[dayKey]int64, error) {
	companies, users, numbers := make([]string, len(days)), make([]string, len(days)), make([]int32, len(days))
	for i, d := range days {
		companies[i], users[i], numbers[i] = d.company, d.user, int32(d.day) // #nosec G115 -- days of this era
	}
	table, err := ext.NewTable("days")
	if err != nil {
		return nil, err
	}
	for i, c := range []struct {
		name   string
		kind   column.Type
		values any
	}{{"company_id", "String", companies}, {"user_id", "String", users}, {"day", "Int32", numbers}} {
		if err := ext.Column(c.name, c.kind)(table); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		if _, err := table.Block().Columns[i].Append(c.values); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	rows, err := s.conn.Query(wholeContext(ctx, chgo.WithExternalTable(table)), query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	found := map[dayKey]int64{}
	whole := false
	for rows.Next() {
		var key dayKey
		var calls int64
		if err := rows.Scan(&key.company, &key.user, &key.tier, &key.day, &calls); err != nil {
			return nil, err
		}
		if key.company == "" {
			whole = true
			continue
		}
		found[key] = calls
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if !whole {
		return nil, errCutOff
	}
	return found, nil
}
