package business

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// A fixture is a Meter over stores of the test's own.
type fixture struct {
	*analyticstest.World
	*Meter
	store *postgres.Store
	sql   *pgx.Conn
}

func setup(t testing.TB) fixture {
	t.Helper()
	f := fixture{World: analyticstest.New(t)}
	f.store, f.sql = analyticstest.Books(t)
	usage, err := analytics.OpenUsage(f.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = usage.Close() })
	f.Meter = New(Config{Companies: f.store, Usage: usage, Tiers: tier.Default(), StoragePrice: 5})
	return f
}

func (f fixture) exec(t testing.TB, statements ...string) {
	t.Helper()
	analyticstest.Exec(t, f.sql, statements...)
}

// schema makes the schema of a company. Roles are the server's, so the name is the test's own, and goes with it.
func (f fixture) schema(t testing.TB, company string) {
	t.Helper()
	f.exec(t, fmt.Sprintf("SELECT create_company_schema('%s')", company))
	t.Cleanup(func() {
		if _, err := f.sql.Exec(context.Background(), fmt.Sprintf("SELECT drop_company_schema('%s')", company)); err != nil {
			t.Error(err)
		}
	})
}

func (f fixture) report(t testing.TB, at time.Time) *Report {
	t.Helper()
	r, err := f.Report(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMeter_ReadsTheStores(t *testing.T) {
	t.Parallel()
	f := setup(t)
	if r := f.report(t, noon); len(r.Months) != 13 || r.Conversion.Percentage != nil || r.Storage.Total.Companies != 0 {
		t.Errorf("of an empty installation: %s", text(t, r))
	}
	f.exec(t,
		`INSERT INTO companies (company_id, name, billing_email, created_at) VALUES ('acme', 'A', 'a@x', '2026-06-01'), ('globex', 'G', 'g@x', '2026-06-01'), ('gone', '', '', '2026-06-01'), ('bare', 'B', 'b@x', '2026-11-01')`,
		`INSERT INTO subscriptions (company_id, tier, price_minor, period_start) VALUES ('acme', 'legacy', 2900, '2026-10-01'), ('globex', 'free', 0, '2026-10-01')`,
		`UPDATE companies SET status = 'purged' WHERE company_id = 'gone'`,
		`INSERT INTO subscription_events (company_id, event, event_time, data) VALUES ('acme', 'subscription.upgraded', '2026-07-01', '{"to": "legacy"}'), ('acme', 'company.created', '2026-08-01', '{}'),
			('globex', 'subscription.upgraded', '2026-07-15', '{"to": "pro", "price_minor": 4900}'), ('globex', 'subscription.expired', '2026-10-10', '{"tier": "pro"}'),
			('gone', 'subscription.upgraded', '2026-07-15', '{"to": "pro", "price_minor": 4900}'), ('gone', 'subscription.closed', '2026-08-10', '{"tier": "pro"}')`,
		`INSERT INTO billing_transactions (transaction_id, company_id, transaction_type, new_tier, amount_minor, currency, lines, period_start, created_at) VALUES
			('t1', 'acme', 'renewal', 'legacy', 2900, 'USD', '[]', '2026-10-31 23:59:59.9+00', '2026-09-01'), ('t2', 'gone', 'upgrade', 'pro', 4900, 'USD', '[]', '2026-07-15', '2026-07-15'),
			('t3', 'acme', 'renewal', 'legacy', 2900, 'EUR', '[]', '2026-10-01', '2026-10-01'), ('t4', 'acme', 'renewal', 'legacy', 1, 'USD', '[]', '2025-10-31', '2025-10-31')`)
	at := func(text string) time.Time {
		when, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	f.Plant(t, analyticstest.Use{Company: "acme", User: "u-1", Tier: "legacy", From: at("2026-10-31T23:59:59.9Z"), Calls: 2},
		analyticstest.Use{Company: "acme", User: "u-1", Tier: "weird", From: at("2026-10-02T00:00:00Z"), Calls: 1}, analyticstest.Use{Company: "acme", User: "u-1", Tier: "odd", From: at("2026-10-02T00:00:00Z"), Calls: 1},
		analyticstest.Use{Company: "acme", User: "voided", Tier: "legacy", From: at("2026-10-03T00:00:00Z"), Calls: 3}, analyticstest.Use{Company: "acme", User: "voided", Tier: "legacy", From: at("2026-10-03T00:00:00Z"), Calls: 3, Voided: true},
		analyticstest.Use{Company: "globex", User: "u-2", Tier: "pro", From: at("2026-11-01T00:00:00Z"), Calls: 1}, analyticstest.Use{Company: "globex", User: "u-2", Tier: "pro", From: at("2025-10-31T00:00:00Z"), Calls: 9})
	r := f.report(t, noon)
	got := text(t, r)
	for _, want := range []string{
		`{"month":"2026-10","complete":true,"subscription_tier":"legacy","currency":"USD","revenue":29.00,"active_users":1,"arpu":29.00,"attributed_revenue":0.500000}`,
		`{"month":"2026-10","complete":true,"subscription_tier":"other","currency":"USD","revenue":0.00,"active_users":1,"arpu":0.00,"attributed_revenue":0.500000}`,
		`{"month":"2026-11","complete":false,"subscription_tier":"pro","currency":"USD","revenue":0.00,"active_users":1,"arpu":0.00,"attributed_revenue":0.250000}`,
		`"to_tier":"pro","companies":3,"converted":2,"converted_to_paid":3,"percentage":66.67`,
		`{"subscription_tier":"legacy","companies":1,"in_catalogue":false}`,
		`"churn":{"month":"2026-10","paid":{"companies_at_start":2,"churned":1,"percentage":50.00`,
		// Pro: globex from August to October, gone in August. Both have left.
		`{"subscription_tier":"pro","currency":"USD","months":12,"revenue":49.00,"company_months":4,"churned":2,"revenue_per_company_month":12.25,"churn_percentage":50.00,"value":24.50}`,
		`{"month":"2026-10","complete":true,"currency":"EUR","mrr":0.00,"revenue":29.00,`, `{"month":"2026-10","complete":true,"currency":"USD","mrr":29.00,"revenue":29.00,"active_users":1,`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it lacks %s:\n%s", want, got)
		}
	}
	if r.Storage.Total.ClickHouse <= 0 || r.Storage.NotMeasured != 3 { // none of the three has a schema
		t.Errorf("%+v", r.Storage)
	}
	if strings.Contains(got, "NaN") || strings.Contains(got, "weird") {
		t.Error(got)
	}
}

func TestMeter_MeasuresTheSchemasOfCompanies(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ids := []string{"m-kept", "m-late", "m-soon", "m-own", "m-ever", "m-locked", "m-fell", "m-broken", "m-none"}
	for _, id := range ids {
		f.exec(t, fmt.Sprintf("INSERT INTO companies (company_id, name, billing_email) VALUES ('%s', 'C', 'c@x')", id),
			fmt.Sprintf("INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('%s', 'free', now())", id))
		if id != "m-none" {
			f.schema(t, id)
			f.exec(t, fmt.Sprintf(`INSERT INTO "tenant_%s".users (user_id, email) VALUES ('u', 'u@x')`, id))
		}
	}
	position := func(id, closed, status string) {
		t.Helper()
		f.exec(t, fmt.Sprintf(`INSERT INTO "tenant_%s".trading_positions (user_id, symbol, volume, open_price, closed_at, status) VALUES ('u', 'EURUSD', 1, 1, now() - interval '%s', '%s')`, id, closed, status))
	}
	position("m-kept", "29 days", "closed")
	position("m-kept", "400 days", "open") // what is open is kept, whatever it says
	position("m-late", "31 days 1 minute", "closed")
	position("m-soon", "30 days 23 hours", "closed") // within the day that the deletion has
	position("m-own", "31 days 1 minute", "closed")
	position("m-ever", "4000 days", "closed")
	position("m-locked", "4000 days", "closed")
	position("m-fell", "100 days", "closed") // its tier was left five days ago, and what that kept is kept for 30
	f.exec(t, `INSERT INTO subscription_events (company_id, event, event_time, data) VALUES ('m-fell', 'subscription.downgraded', now() - interval '5 days', '{"from": "pro", "to": "free"}'),
			('m-late', 'subscription.downgraded', now() - interval '31 days', '{"from": "pro", "to": "free"}')`,
		`ALTER TABLE "tenant_m-broken".trading_positions ALTER COLUMN closed_at TYPE text`) // one company's trouble
	f.exec(t, `INSERT INTO limit_overrides (company_id, limit_name, value, reason) VALUES ('m-own', 'retention_days', '60', 'r'), ('m-ever', 'retention_days', '"unlimited"', 'r')`)
	tx, err := f.sql.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE "tenant_m-locked".trading_positions IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	r := f.report(t, time.Now())
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.Retention; got.Companies != 6 || got.Compliant != 5 || got.NotMeasured != 3 || *got.Percentage != 83_33 || *got.Met {
		t.Errorf("%+v", got)
	}
	if got := r.Storage; got.NotMeasured != 3 || got.Total.Companies != 6 || got.Total.Postgres < 5*8192*10 || got.Total.Cost == nil {
		t.Errorf("%+v", got)
	}
	// What the deletion does is seen by a measure that shares nothing with it.
	f.exec(t, "SELECT cleanup_old_data_by_tier('m-late')", "SELECT cleanup_old_data_by_tier('m-locked')")
	if got := f.report(t, time.Now()).Retention; got.Companies != 7 || got.Compliant != 7 || got.Met != nil || got.Reason != "not all companies could be measured" {
		t.Errorf("after the cleanup: %+v", got)
	}
}

func TestMeter_FindsRightsAcrossCompanies(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, id := range []string{"i-one", "i-two"} {
		f.exec(t, fmt.Sprintf("INSERT INTO companies (company_id, name, billing_email) VALUES ('%s', 'C', 'c@x')", id))
		f.schema(t, id)
	}
	f.exec(t, `CREATE ROLE "i-login" LOGIN IN ROLE "tenant_i-one"`)
	t.Cleanup(func() {
		if _, err := f.sql.Exec(context.Background(), `DROP OWNED BY "i-login"; DROP ROLE "i-login"`); err != nil {
			t.Error(err)
		}
	})
	leaks := func() (found []string) {
		t.Helper()
		r := f.report(t, time.Now())
		for _, c := range r.Isolation.Checks {
			if c.Leaks > 0 {
				found = append(found, fmt.Sprint(c.Name, " ", c.Leaks))
			}
			if c.Checked == 0 {
				t.Errorf("%s looks at nothing", c.Name)
			}
		}
		if r.Isolation.Met != (len(found) == 0) {
			t.Errorf("%+v", r.Isolation)
		}
		return found
	}
	if found := leaks(); found != nil {
		t.Fatalf("as they are made: %q", found)
	}
	for _, c := range []struct{ grant, revoke, want string }{
		{`GRANT USAGE ON SCHEMA "tenant_i-one" TO "tenant_i-two"`, `REVOKE USAGE ON SCHEMA "tenant_i-one" FROM "tenant_i-two"`, "schemas 1"},
		{`GRANT SELECT ON "tenant_i-one".users TO "tenant_i-two"`, `REVOKE SELECT ON "tenant_i-one".users FROM "tenant_i-two"`, "tables 1"},
		{`GRANT SELECT ON "tenant_i-one".users TO PUBLIC`, `REVOKE SELECT ON "tenant_i-one".users FROM PUBLIC`, "tables 1"},
		{`GRANT UPDATE (email) ON "tenant_i-one".users TO "tenant_i-two"`, `REVOKE UPDATE (email) ON "tenant_i-one".users FROM "tenant_i-two"`, "tables 1"},
		{`GRANT SELECT ON companies TO "tenant_i-one"`, `REVOKE SELECT ON companies FROM "tenant_i-one"`, "shared_tables 1"},
		{`GRANT SELECT ON payments TO PUBLIC`, `REVOKE SELECT ON payments FROM PUBLIC`, "shared_tables 1"},
		{`GRANT "tenant_i-one" TO "tenant_i-two"`, `REVOKE "tenant_i-one" FROM "tenant_i-two"`, "memberships 1"},
		{`ALTER TABLE "tenant_i-one".users OWNER TO "tenant_i-one"`, `ALTER TABLE "tenant_i-one".users OWNER TO CURRENT_USER`, "tables 1"},
		// Of a login, which has what the roles have that it is a member of.
		{`GRANT SELECT ON "tenant_i-two".users TO "i-login"`, `REVOKE SELECT ON "tenant_i-two".users FROM "i-login"`, "tables 1"},
		{`GRANT SELECT ON companies TO "i-login"`, `REVOKE SELECT ON companies FROM "i-login"`, "shared_tables 1"},
		{`GRANT "tenant_i-two" TO "i-login"`, `REVOKE "tenant_i-two" FROM "i-login"`, "memberships 1"},
		{`GRANT database_service_role TO "i-login"`, `REVOKE database_service_role FROM "i-login"`, "memberships 1"},
		{`ALTER ROLE "i-login" CREATEROLE`, `ALTER ROLE "i-login" NOCREATEROLE`, "attributes 1"},
		{`ALTER ROLE "tenant_i-one" BYPASSRLS`, `ALTER ROLE "tenant_i-one" NOBYPASSRLS`, "attributes 1"},
	} {
		f.exec(t, c.grant)
		if found := leaks(); len(found) != 1 || found[0] != c.want {
			t.Errorf("%s: found %q, want %s", c.grant, found, c.want)
		}
		f.exec(t, c.revoke)
	}
}

func TestSamples_GiveThePercentileOfAllQueries(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec(t, `INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('grand', 'G', 'g@x')`,
		`INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('acme', 'pro', now()), ('grand', 'enterprise', now())`,
		`INSERT INTO query_samples (sampled_at, tier, route, took, weight) SELECT now() - interval '25 hours', 'pro', '/old', '9 s', 1 FROM generate_series(1, 100)`)
	s := NewSamples(f.store, nil)
	for range 4 { // intervals
		for range 9600 {
			s.Observe("/often", "acme", 10*time.Millisecond)
		}
		for range 16 {
			s.Observe("/seldom", "acme", 2*time.Second)
		}
		s.Observe("/seldom", "stranger", time.Hour) // that has no subscription
		s.Observe("/often", "grand", time.Second)
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var rows, old int
	if err := f.sql.QueryRow(t.Context(), "SELECT count(*), count(*) FILTER (WHERE route = '/old') FROM query_samples").Scan(&rows, &old); err != nil || rows > 4*2*samplesEach || rows < 4*(2*samplesEach-2) || old != 0 {
		t.Errorf("%d rows, %d of them old: %v", rows, old, err)
	}
	for _, l := range f.report(t, time.Now()).Latency {
		switch l.Tier {
		case "pro":
			// Half of the samples took 2 s, and stand for one query in 600.
			if l.P95 == nil || *l.P95 != 10_00 || !*l.Met || l.Queries < 36_000 || l.Queries > 39_000 || len(l.Routes) != 2 || *l.Routes[1].P95 != 2000_00 {
				t.Errorf("%+v", l)
			}
		default:
			if l.P95 != nil || l.Met != nil || l.Reason == "" {
				t.Errorf("of too few samples: %+v", l)
			}
		}
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Errorf("of nothing: %v", err)
	}
}

// A report that was stored is published as it is, also by a process that comes after a kill; and only once by those that finish.
func TestReporter_ASlotHasOneReport(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec(t, `INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x')`, `INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('acme', 'pro', now())`)
	slot := noon.Truncate(time.Hour)
	var published []*events.Envelope
	down := errors.New("the broker is away")
	clock := noon
	r := &Reporter{Meter: f.Meter, Store: f.store, Now: func() time.Time { return clock }, Publish: func(_ context.Context, key string, e *events.Envelope) error {
		if key != "business_metrics" {
			t.Errorf("the key is %s", key)
		}
		published = append(published, e)
		if len(published) == 1 {
			return down
		}
		return nil
	}}
	if _, err := r.ReportMetrics(t.Context(), slot); !errors.Is(err, down) {
		t.Fatalf("got %v, want the broker's error", err)
	}
	clock = clock.Add(time.Minute)
	f.exec(t, `INSERT INTO companies (company_id, name, billing_email) VALUES ('later', 'L', 'l@x')`, `INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('later', 'pro', now())`)
	for range 2 {
		result, err := r.ReportMetrics(t.Context(), slot)
		if err != nil {
			t.Fatal(err)
		}
		if got := text(t, result); !strings.Contains(got, `"reported_at":"2026-11-15T12:00:00Z"`) || !strings.Contains(got, published[0].ID) {
			t.Errorf("the result is %s", got)
		}
	}
	if len(published) != 2 || published[0].ID != published[1].ID || string(published[0].Data) != string(published[1].Data) {
		t.Fatalf("published %d times: %+v", len(published), published)
	}
	var data struct {
		Service    string    `json:"service"`
		Metrics    Report    `json:"metrics"`
		ReportedAt time.Time `json:"reported_at"`
	}
	e := published[0]
	if err := json.Unmarshal(e.Data, &data); err != nil || data.Service != "database-service" || !data.ReportedAt.Equal(noon) || data.Metrics.Tiers[1].Companies != 1 ||
		e.Type != events.TypeBusinessMetricsReported || e.Source != "/tenantflow/jobs" || e.CausationID != "slot:business_metrics:2026-11-15T12:00:00Z" {
		t.Errorf("%v: %+v %s", err, e, e.Data)
	}
	clock = clock.Add(time.Hour)
	if _, err := r.ReportMetrics(t.Context(), slot.Add(time.Hour)); err != nil || published[2].ID == e.ID {
		t.Errorf("the next slot: %v", err)
	}
	if last, err := Last(t.Context(), f.store); err != nil || last == nil || last.Tiers[1].Companies != 2 {
		t.Errorf("the last report: %+v, %v", last, err)
	}
}

// What was stored while the broker was away is published with the next slot, before it.
func TestReporter_WhatWasLeftIsPublishedLater(t *testing.T) {
	t.Parallel()
	f := setup(t)
	away, published := errors.New("the broker is away"), []string{}
	r := &Reporter{Meter: f.Meter, Store: f.store, Publish: func(_ context.Context, _ string, e *events.Envelope) error {
		published = append(published, e.CausationID)
		return away
	}}
	now, err := f.store.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := now.UTC().Truncate(time.Hour).Add(-time.Hour)
	if _, err := r.ReportMetrics(t.Context(), first); !errors.Is(err, away) {
		t.Fatalf("got %v, want the broker's error", err)
	}
	away = nil
	if _, err := r.ReportMetrics(t.Context(), first.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	id := func(slot time.Time) string { return "slot:business_metrics:" + slot.Format(time.RFC3339) }
	if got, want := strings.Join(published, " "), strings.Join([]string{id(first), id(first), id(first.Add(time.Hour))}, " "); got != want {
		t.Errorf("published %s, want %s", got, want)
	}
}
