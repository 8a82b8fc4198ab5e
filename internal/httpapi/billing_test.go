package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/billing"
	"tenantflow/internal/directory"
	"tenantflow/sinks/postgres"
)

// exports are closed in 2026-10 and drafts in other months.
type exports struct{}

func (exports) Get(_ context.Context, company string, period analytics.Month) (*billing.Export, error) {
	x := &billing.Export{Company: company, Period: period.String(), State: billing.Draft, JSON: []byte("{}\n"), CSV: []byte("line\r\n")}
	switch {
	case company != "acme":
		return nil, directory.ErrUnknown
	case period.String() == "2030-01":
		return nil, billing.ErrFuture
	case period.String() == "2001-01":
		return nil, billing.ErrTooOld
	case period.String() == "2026-10":
		x.ID, x.State, x.Checksum, x.CSVChecksum = "e", billing.Closed, strings.Repeat("0", 64), strings.Repeat("1", 64)
	}
	return x, nil
}

func (exports) Parquet(context.Context, *billing.Export) ([]byte, error) { return []byte("PAR1"), nil }

func TestBilling_ClosedExportsHaveATag(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	stores := f.world.stores()
	stores.Billing = exports{}
	f.Attach(stores)
	const target = "/v1/companies/acme/billing/2026-10"
	ask := func(target string, match string) answer {
		t.Helper()
		return f.ask(target, func(r *http.Request) {
			if match != "" {
				r.Header.Set("If-None-Match", match)
			}
		})
	}
	zeros, ones := `"`+strings.Repeat("0", 64)+`"`, `"`+strings.Repeat("1", 64)+`"`
	a := ask(target, ones)
	if a.status != http.StatusOK || a.body != "{}\n" || a.header.Get("ETag") != zeros || a.header.Get("Content-Type") != "application/json" || a.header.Get("Billing-State") != "closed" ||
		a.header.Get("Repr-Digest") != "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:" {
		t.Errorf("%d %v %q", a.status, a.header, a.body)
	}
	a = ask(target+"?format=csv", zeros)
	if a.status != http.StatusOK || a.body != "line\r\n" || a.header.Get("ETag") != ones || !strings.HasPrefix(a.header.Get("Content-Type"), "text/csv") ||
		a.header.Get("Content-Disposition") != `attachment; filename="acme.2026-10.csv"` {
		t.Errorf("%d %v %q", a.status, a.header, a.body)
	}
	if a := ask(target+"?format=parquet", "*"); a.status != http.StatusOK || a.body != "PAR1" || a.header.Get("ETag") != "" || a.header.Get("Billing-State") != "closed" || a.header.Get("Content-Type") != "application/vnd.apache.parquet" {
		t.Errorf("%d %v %q", a.status, a.header, a.body)
	}
	for _, match := range []string{zeros, "W/" + zeros, ones + ", " + zeros, "*"} {
		if a := ask(target, match); a.status != http.StatusNotModified || a.body != "" || a.header.Get("ETag") != zeros {
			t.Errorf("%s: %d %v %q", match, a.status, a.header, a.body)
		}
	}
	if a := ask("/v1/companies/acme/billing/2026-09", "*"); a.status != http.StatusOK || a.header.Get("ETag")+a.header.Get("Repr-Digest") != "" || a.header.Get("Billing-State") != "draft" {
		t.Errorf("a draft: %d %v", a.status, a.header)
	}
	for target, want := range map[string]struct {
		status int
		says   string
	}{
		"/v1/companies/acme/billing/2026-13":               {http.StatusBadRequest, "billing_period is no month"},
		"/v1/companies/acme/billing/1999-12":               {http.StatusBadRequest, "billing_period is no month"},
		"/v1/companies/acme/billing/2026-1":                {http.StatusBadRequest, "billing_period is no month"},
		"/v1/companies/acme/billing/2030-01":               {http.StatusBadRequest, "the period has not begun"},
		"/v1/companies/acme/billing/2001-01":               {http.StatusBadRequest, "its usage rows may have left the table"},
		"/v1/companies/acme/billing/2026-10?format=xml":    {http.StatusBadRequest, "format is none of json, csv, parquet"},
		"/v1/companies/acme/billing/2026-10?format=":       {http.StatusBadRequest, "format is none of json, csv, parquet"},
		"/v1/companies/acme/billing/2026-10?month=2026-10": {http.StatusBadRequest, "a query parameter is not known"},
		"/v1/companies/globex/billing/2026-10":             {http.StatusNotFound, "there is no such company"},
		"/v1/companies/acme/billing":                       {http.StatusNotFound, "there is nothing at"},
	} {
		if a := f.ask(target); a.status != want.status || !strings.Contains(a.body, want.says) {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
	if a := f.ask("/v1/companies/globex/billing/2026-10", withToken(acmeToken)); a.status != http.StatusNotFound {
		t.Errorf("outside the scope: %d %s", a.status, a.body)
	}
	stores.Billing = nil
	f.Attach(stores)
	if a := f.ask(target); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "TENANTFLOW_CLICKHOUSE_DSN is not set") {
		t.Errorf("without ClickHouse: %d %s", a.status, a.body)
	}
}

// noLog is that of a process without Kafka.
type noLog struct{}

func (noLog) Look(context.Context, time.Time) (billing.AsOf, error) {
	return billing.AsOf{}, errors.New("no Kafka")
}

// A closed export is there while ClickHouse and Kafka are away; a draft is not.
func TestBilling_ClosedExportsNeedPostgresAlone(t *testing.T) {
	t.Parallel()
	f, world := setupStores(t), analyticstest.New(t)
	options := *world.Options
	options.Addr = []string{"127.0.0.1:1"}
	rows, err := billing.OpenRows(&options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	stores := f.stores.Load().Stores
	books, ok := stores.Companies.(*postgres.Store)
	if !ok {
		t.Fatalf("companies are in a %T", stores.Companies)
	}
	stores.Billing = billing.New(billing.Config{Books: books, Rows: rows, Log: noLog{}})
	f.Attach(stores)
	sum := strings.Repeat("a", 64)
	f.exec(t, `INSERT INTO billing_exports (export_id, company_id, billing_period, state, as_of, checksum, csv_checksum, currency, totals, reconciled, content_json, content_csv)
		VALUES ('e', 'acme', '2026-10', 'closed', '{}', '`+sum+`', '`+sum+`', 'USD', '{}', true, '{"a": 1}', 'line')`)
	if a := f.get("/v1/companies/acme/billing/2026-10"); a.status != http.StatusOK || a.body != `{"a": 1}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := f.get("/v1/companies/acme/billing/2026-09"); a.status != http.StatusServiceUnavailable {
		t.Errorf("a draft: %d %s", a.status, a.body)
	}
	if a := f.get("/v1/companies/stranger/billing/2026-10"); a.status != http.StatusNotFound {
		t.Errorf("a stranger: %d %s", a.status, a.body)
	}
	f.exec(t, "UPDATE companies SET status = 'purged' WHERE company_id = 'acme'")
	if a := f.get("/v1/companies/acme/billing/2026-10"); a.status != http.StatusNotFound {
		t.Errorf("purged: %d %s", a.status, a.body)
	}
}
