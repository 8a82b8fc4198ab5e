package migrations_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/migrations"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

var update = flag.Bool("update", false, "write the golden files anew")

// newDatabase gives the options of a database that does not exist yet.
func newDatabase(t *testing.T) *clickhouse.Options {
	t.Helper()
	options, err := clickhouse.ParseDSN(enginetest.SharedClickHouse(t).DSNOf(t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	return options
}

func open(t *testing.T, options *clickhouse.Options) *migrations.ClickHouse {
	t.Helper()
	c, err := migrations.OpenClickHouse(t.Context(), options, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func migrated(t *testing.T) *migrations.ClickHouse {
	t.Helper()
	c := open(t, newDatabase(t))
	if _, err := c.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMigratingTwiceChangesNothingTheSecondTime(t *testing.T) {
	t.Parallel()
	options := newDatabase(t)
	options.Auth.Database = "not `there` yet"
	if _, err := migrations.OpenClickHouse(t.Context(), options, false); !errors.Is(err, migrations.ErrNoDatabase) {
		t.Fatalf("a database that is not there opens: %v", err)
	}
	c := open(t, options)
	before, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range before {
		if !v.Pending() {
			t.Errorf("%s is applied to an empty database", v.Name)
		}
	}
	first, err := c.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != len(before) || len(first) < 4 {
		t.Errorf("applied %d versions of %d", len(first), len(before))
	}
	ddl := definitions(t, c)
	second, err := c.Up(t.Context())
	if err != nil || len(second) != 0 {
		t.Errorf("the second time: applied %v, %v", second, err)
	}
	if definitions(t, c) != ddl {
		t.Error("the second time changed a definition")
	}
	after, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range after {
		if v.Pending() || v.Version != before[i].Version || time.Since(v.Applied).Abs() > time.Hour {
			t.Errorf("%+v", v)
		}
	}
}

func TestAMigrationThatWasCutOffIsFinished(t *testing.T) {
	t.Parallel()
	options := newDatabase(t)
	c := open(t, options)
	if _, err := c.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := definitions(t, c)
	// As after a kill between the statements of a file: the first table is there, the version is not recorded.
	for _, statement := range []string{"TRUNCATE TABLE goose_db_version", "DROP VIEW usage_daily_feed", "DROP VIEW billing_monthly"} {
		if _, err := c.DB().ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := open(t, options).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := definitions(t, c); got != want {
		t.Errorf("the schema is\n%s\nwant\n%s", got, want)
	}
}

func TestTheSchemaIsTheOneInTheGoldenFile(t *testing.T) {
	t.Parallel()
	got := definitions(t, migrated(t))
	golden := filepath.Join("testdata", "clickhouse.golden.sql")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the schema differs from %s (write it anew with -update):\n%s", golden, got)
	}
}

// definitions returns what the server says about every table and view.
func definitions(t *testing.T, c *migrations.ClickHouse) string {
	t.Helper()
	rows, err := c.DB().QueryContext(t.Context(), `SELECT name, formatQuery(create_table_query) FROM system.tables
		WHERE database = currentDatabase() AND name != 'goose_db_version' ORDER BY name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var b strings.Builder
	for rows.Next() {
		var name, query string
		if err := rows.Scan(&name, &query); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "-- %s\n%s;\n\n", name, strings.ReplaceAll(query, c.Database()+".", ""))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTheViewsAreTheSumsOfTheRows(t *testing.T) {
	t.Parallel()
	c := migrated(t)
	start := time.Now().Add(-40 * 24 * time.Hour)
	g, err := model.New(model.Config{Seed: 11, Count: 20_000, Companies: 20, UsersPerCompany: 10, Start: start,
		Step: 2 * time.Minute, Late: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	insert(t, c, g, 3000)

	want := g.Expected().Tables
	check := func(what string) {
		t.Helper()
		for name, read := range map[string]func() (model.Tables, error){
			"views": func() (model.Tables, error) { return model.ReadViews(t.Context(), c.DB()) },
			"rows":  func() (model.Tables, error) { return model.ReadRows(t.Context(), c.DB()) },
		} {
			got, err := read()
			if err != nil {
				t.Fatal(err)
			}
			if d := model.Compare(got, want); len(d) > 0 {
				t.Errorf("%s, %s:\n%s", what, name, model.Describe(d))
			}
		}
	}
	check("before merging")
	for _, store := range []string{"usage_hourly_store", "usage_daily_store", "billing_monthly_store", "usage_tracking"} {
		if _, err := c.DB().ExecContext(t.Context(), "OPTIMIZE TABLE "+store+" FINAL"); err != nil {
			t.Fatal(err)
		}
	}
	check("after merging")
}

// insert writes the generator's events as rows, in blocks of n, one month each.
func insert(t *testing.T, c *migrations.ClickHouse, g *model.Generator, n int) {
	t.Helper()
	decoder := events.NewUsageDecoder(events.UsageLimits{})
	months := map[string][][]any{}
	write := func(month string) {
		t.Helper()
		ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0, "max_insert_threads": 1}))
		if err := insertBlock(ctx, c, months[month]); err != nil {
			t.Fatal(err)
		}
		months[month] = nil
	}
	var m model.Message
	for offset := 0; g.Next(&m); offset++ {
		var u events.Usage
		record := &events.Record{Topic: "usage.events", Key: m.Key, Headers: m.Headers, Value: m.Value}
		if err := decoder.Decode(record, time.Now(), &u); err != nil {
			t.Fatal(err)
		}
		at := time.UnixMilli(u.Timestamp).UTC()
		month := at.Format("2006-01")
		months[month] = append(months[month], []any{string(u.ID), string(u.Source), string(u.UserID), string(u.CompanyID), at,
			string(u.Tier), string(u.Service), string(u.Endpoint), u.DataPoints, fmt.Sprintf("%d.%03d", u.ProcessingTime/1000, u.ProcessingTime%1000),
			string(u.BillingPeriod), fmt.Sprintf("%d.%06d", u.Revenue/1e6, u.Revenue%1e6), "usage.events", uint16(0), int64(offset),
			time.Now().Add(time.Minute)})
		if len(months[month]) == n {
			write(month)
		}
	}
	for month, rows := range months {
		if len(rows) > 0 {
			write(month)
		}
	}
}

func insertBlock(ctx context.Context, c *migrations.ClickHouse, rows [][]any) error {
	tx, err := c.DB().BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin a block: %w", err)
	}
	statement, err := tx.PrepareContext(ctx, "INSERT INTO usage_tracking (event_id, event_source, user_id, company_id, timestamp, subscription_tier, "+
		"service_name, api_endpoint, data_points_consumed, processing_time_ms, billing_period, revenue_attributed, _topic, _partition, _offset, _insert_by)")
	if err != nil {
		return fmt.Errorf("prepare a block: %w", err)
	}
	defer statement.Close()
	for _, row := range rows {
		if _, err := statement.ExecContext(ctx, row...); err != nil {
			return fmt.Errorf("append a row: %w", err)
		}
	}
	return tx.Commit()
}

// A row of sign -1 takes back the usage whose data it repeats, from every total; the latest activity stays.
func TestViews_SumWithTheSign(t *testing.T) {
	t.Parallel()
	c := migrated(t)
	g, err := model.New(model.Config{Seed: 12, Count: 500, Companies: 3, UsersPerCompany: 3, Start: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	insert(t, c, g, 500)
	exec := func(statement string) {
		t.Helper()
		if _, err := c.DB().ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	number := func(query string) (n int64) {
		t.Helper()
		if err := c.DB().QueryRowContext(t.Context(), "SELECT toInt64("+query+")").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const void = "INSERT INTO usage_tracking SELECT * REPLACE (toInt8(-1) AS sign, event_source AS voids_source, event_id AS voids_id, concat('void:', event_id) AS event_id, now64(3) + INTERVAL 1 MINUTE AS _insert_by) "
	exec(void + "FROM (SELECT * FROM usage_tracking WHERE _offset % 3 = 0 AND sign = 1)")
	const voided = 167 // of the offsets 0 to 499
	for view, calls := range map[string]string{"usage_analytics_hourly": "total_requests", "usage_daily": "total_api_calls", "billing_monthly": "total_api_calls"} {
		if n := number("(SELECT sum(" + calls + ") FROM " + view + ")"); n != 500-voided {
			t.Errorf("%s adds up to %d calls, want %d", view, n, 500-voided)
		}
	}
	for rows, totals := range map[string]string{
		"sum(sign * toInt64(data_points_consumed))":  "(SELECT sum(total_data_consumption) FROM usage_daily)",
		"sum(sign * revenue_attributed) * 1000000":   "(SELECT sum(monthly_revenue_attributed) * 1000000 FROM billing_monthly)",
		"sum(sign * processing_time_ms) * 1000":      "(SELECT sum(total_processing_time) * 1000 FROM usage_analytics_hourly)",
		"toUnixTimestamp64Milli(max(timestamp)) + 0": "(SELECT toUnixTimestamp64Milli(max(last_activity)) FROM usage_daily)",
	} {
		if a, b := number("(SELECT "+rows+" FROM usage_tracking)"), number(totals); a != b {
			t.Errorf("%s: %d of the rows, %d of the totals", rows, a, b)
		}
	}
	// Everything taken back is no usage, and nothing is divided by its zero.
	exec(void + "FROM (SELECT * FROM usage_tracking WHERE _offset % 3 != 0 AND sign = 1)")
	for _, view := range []string{"usage_analytics_hourly", "usage_daily", "billing_monthly"} {
		if n := number("(SELECT count() FROM " + view + ")"); n != 0 {
			t.Errorf("%s has %d lines of usage that was all taken back", view, n)
		}
	}
}

func TestARowThatComesTooLateIsRefused(t *testing.T) {
	t.Parallel()
	c := migrated(t)
	row := func(by time.Time) []any {
		return []any{"id", "/s", "u", "c", time.Now(), "pro", "svc", "/e", uint32(1), "1.000", "2026-11", "0.000001", "usage.events",
			uint16(0), int64(0), by}
	}
	if err := insertBlock(t.Context(), c, [][]any{row(time.Now().Add(time.Minute)), row(time.Now().Add(-time.Second))}); err == nil || !strings.Contains(err.Error(), "in_time") {
		t.Errorf("a block with a late row: %v", err)
	}
	got, err := model.ReadViews(t.Context(), c.DB())
	if err != nil {
		t.Fatal(err)
	}
	if got.Rows != 0 || len(got.Hourly) != 0 {
		t.Errorf("something of it is there: %+v", got)
	}
}

func TestAnInsertedDifferenceCorrectsATotal(t *testing.T) {
	t.Parallel()
	c := migrated(t)
	g, err := model.New(model.Config{Seed: 1, Count: 50, Companies: 1, UsersPerCompany: 1, Start: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	insert(t, c, g, 1000)
	// Wrong by a group that should not be there and by one that has too much; the correction is the same with the
	// other sign.
	for _, sign := range []string{"", "-"} {
		if _, err := c.DB().ExecContext(t.Context(), fmt.Sprintf(`INSERT INTO usage_daily_store
			SELECT company_id, user_id, subscription_tier, day, %[1]s7, %[1]s9, toDecimal128('%[1]s0.5', 6), last_activity FROM usage_daily WHERE company_id != 'ghost'
			UNION ALL SELECT 'ghost', 'u', 'pro', toDate('2026-01-01'), %[1]s1, %[1]s1, toDecimal128('%[1]s1', 6), toDateTime64('2026-01-01 00:00:00', 3, 'UTC')`, sign)); err != nil {
			t.Fatal(err)
		}
		got, err := model.ReadViews(t.Context(), c.DB())
		if err != nil {
			t.Fatal(err)
		}
		differences := model.Compare(got, g.Expected().Tables)
		if (len(differences) == 0) != (sign == "-") {
			t.Errorf("after inserting %q1: %s", sign, model.Describe(differences))
		}
	}
}
