package model

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// A store is what the tables are read from: a *sql.DB on ClickHouse, or one connection of it.
type store interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// rowText is a row as one text, the same as the model makes of the event it came from.
const (
	identityText = `concat(event_source, '\n', event_id)`
	rowText      = `concat(
		event_source, '\n', event_id, '\n', user_id, '\n', company_id, '\n',
		toString(toUnixTimestamp64Milli(timestamp)), '\n', subscription_tier, '\n', service_name, '\n', api_endpoint, '\n',
		toString(data_points_consumed), '\n', toString(toInt64(processing_time_ms * 1000)), '\n', billing_period, '\n',
		toString(toInt64(revenue_attributed * 1000000)))`
)

// rowsQuery gives the columns of readSums, and behind them the fingerprints of the whole table.
const rowsQuery = `
	SELECT
		'', toInt64(count()), toInt64(sum(sign * toInt64(data_points_consumed))), toInt64(sum(sign * processing_time_ms) * 1000),
		toInt64(sum(sign * revenue_attributed) * 1000000), toUnixTimestamp64Milli(max(timestamp)),
		sum(xxHash64(` + identityText + `)), sum(xxHash64(` + rowText + `))
	FROM usage_tracking`

// The keys of the aggregates as the model writes them.
const (
	hourKeyText  = `concat(company_id, '|', subscription_tier, '|', service_name, '|', formatDateTime(hour, '%Y-%m-%dT%H', 'UTC'))`
	dayKeyText   = `concat(company_id, '|', user_id, '|', subscription_tier, '|', toString(day))`
	monthKeyText = `concat(company_id, '|', user_id, '|', subscription_tier, '|', billing_period)`
)

// ReadViews reads what the usage tables hold, the aggregates from the views that people query. The connection's
// database is the one that was migrated.
func ReadViews(ctx context.Context, db store) (Tables, error) {
	return readTables(ctx, db, [3]string{
		`SELECT ` + hourKeyText + `, total_requests, total_data_points, toInt64(total_processing_time * 1000),
			toInt64(total_revenue * 1000000), toInt64(0)
		FROM usage_analytics_hourly`,
		`SELECT ` + dayKeyText + `, total_api_calls, total_data_consumption, toInt64(0),
			toInt64(revenue_attributed * 1000000), toUnixTimestamp64Milli(last_activity)
		FROM usage_daily`,
		`SELECT ` + monthKeyText + `, total_api_calls, total_data_consumption, toInt64(0),
			toInt64(monthly_revenue_attributed * 1000000), toUnixTimestamp64Milli(last_activity)
		FROM billing_monthly`,
	})
}

// ReadRows reads the same from the rows alone: the aggregates are what the rows add up to, not what the views say.
func ReadRows(ctx context.Context, db store) (Tables, error) {
	grouped := func(keyText, timeColumn, processing, last string) string {
		return `SELECT ` + keyText + `, toInt64(sum(sign)), toInt64(sum(sign * toInt64(data_points_consumed))), ` + processing + `,
			toInt64(sum(sign * revenue_attributed) * 1000000), ` + last + `
		FROM (SELECT *, ` + timeColumn + ` FROM usage_tracking)
		GROUP BY 1 HAVING sum(sign) != 0`
	}
	const (
		processing = `toInt64(sum(sign * processing_time_ms) * 1000)`
		last       = `toUnixTimestamp64Milli(max(timestamp))`
		none       = `toInt64(0)`
	)
	return readTables(ctx, db, [3]string{
		grouped(hourKeyText, `toStartOfHour(timestamp) AS hour`, processing, none),
		grouped(dayKeyText, `toDate(timestamp) AS day`, none, last),
		grouped(monthKeyText, `1`, none, last),
	})
}

func readTables(ctx context.Context, db store, aggregates [3]string) (Tables, error) {
	var t Tables
	rows, err := db.QueryContext(ctx, rowsQuery)
	if err != nil {
		return t, fmt.Errorf("add up usage_tracking: %w", err)
	}
	defer rows.Close()
	var key string
	for rows.Next() {
		s := &t.Total
		if err := rows.Scan(&key, &s.Rows, &s.DataPoints, &s.Processing, &s.Revenue, &s.Last, &t.Identities, &t.Contents); err != nil {
			return t, fmt.Errorf("add up usage_tracking: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return t, fmt.Errorf("add up usage_tracking: %w", err)
	}
	t.Rows = t.Total.Rows

	for i, into := range []*map[string]Sums{&t.Hourly, &t.Daily, &t.Monthly} {
		if *into, err = readSums(ctx, db, aggregates[i]); err != nil {
			return t, err
		}
	}
	return t, nil
}

func readSums(ctx context.Context, db store, query string) (map[string]Sums, error) {
	from := query[strings.Index(query, "FROM"):]
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read sums %s: %w", from, err)
	}
	defer rows.Close()
	sums := map[string]Sums{}
	for rows.Next() {
		var key string
		var s Sums
		if err := rows.Scan(&key, &s.Rows, &s.DataPoints, &s.Processing, &s.Revenue, &s.Last); err != nil {
			return nil, fmt.Errorf("read sums %s: %w", from, err)
		}
		if _, twice := sums[key]; twice {
			return nil, fmt.Errorf("read sums %s: key %s comes twice", from, key)
		}
		sums[key] = s
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read sums %s: %w", from, err)
	}
	return sums, nil
}
