// Package analyticstest gives tests a ClickHouse with usage to analyse.
package analyticstest

import (
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/migrations"
)

// A World is a database of usage for one test.
type World struct {
	DSN     string
	Options *chgo.Options
	Conn    driver.Conn
}

// New makes a database of the test's own on the shared server, with all tables.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{DSN: enginetest.NewDatabase(t)}
	var err error
	if w.Options, err = chgo.ParseDSN(w.DSN); err != nil {
		t.Fatal(err)
	}
	tables, err := migrations.OpenClickHouse(t.Context(), w.Options, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tables.Close() }() // everything was answered before
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.Conn, err = chgo.Open(w.Options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Conn.Close() })
	return w
}

// A Use is usage that is the same on each of some days.
type Use struct {
	Company, User, Tier string
	From                time.Time // the first call of the first day; the others of the day follow each other by a millisecond
	Days                int       // 0: one
	Calls               int       // a day
	Points              int       // data points of each call
	Voided              bool      // the calls are voids, which take earlier ones back
}

// Plant inserts rows of usage. The views add them up.
func (w *World) Plant(t testing.TB, all ...Use) {
	t.Helper()
	for _, u := range all {
		sign, days := 1, max(u.Days, 1)
		if u.Voided {
			sign = -1
		}
		err := w.Conn.Exec(t.Context(), `INSERT INTO usage_tracking (event_id, event_source, sign, user_id, company_id, timestamp, subscription_tier,
				service_name, api_endpoint, data_points_consumed, processing_time_ms, billing_period, revenue_attributed, _topic, _partition, _offset, _insert_by)
			SELECT toString(generateUUIDv4()), '/test', ?, ?, ?, fromUnixTimestamp64Milli(toInt64(?) + intDiv(number, ?) * 86400000 + number % ?, 'UTC') AS at, ?,
				'svc', '/v1', ?, '1.5', formatDateTime(at, '%Y-%m'), '0.25', 'usage.events', 0, number, now64(3) + INTERVAL 1 HOUR
			FROM numbers(?)`, sign, u.User, u.Company, u.From.UnixMilli(), u.Calls, u.Calls, u.Tier, u.Points, days*u.Calls)
		if err != nil {
			t.Fatalf("plant %+v: %v", u, err)
		}
	}
}
