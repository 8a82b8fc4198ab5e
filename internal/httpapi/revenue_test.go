package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/engine/enginetest"
)

func TestRevenue_FromTheStores(t *testing.T) {
	t.Parallel()
	f, world := setupStores(t), analyticstest.New(t)
	proxy := enginetest.Proxy(t, world.Options.Addr[0])
	f.analyse(t, world, proxy.Addr())
	f.now = func() time.Time { return at("2026-11-15T12:00:00Z") }
	f.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('gone', '', ''), ('bare', 'B', 'b@x')", "UPDATE companies SET status = 'purged' WHERE company_id = 'gone'",
		`INSERT INTO billing_transactions (transaction_id, company_id, transaction_type, new_tier, amount_minor, currency, lines, period_start, created_at)
			VALUES ('t-revenue', 'acme', 'upgrade', 'pro', 4999, 'USD', '[]', '2026-11-02', '2026-11-02')`)
	world.Plant(t, analyticstest.Use{Company: "acme", User: "u-1", Tier: "pro", From: at("2026-10-16T00:00:00Z"), Days: 2, Calls: 3})
	const want = `"period_months":2,"total_revenue":49.99,"avg_monthly_revenue":25.00,"attributed_revenue":1.500000,`
	const rows = `"monthly_breakdown":[{"month":"2026-10","subscription_tier":"pro","monthly_revenue":0.00,"attributed_revenue":1.500000,"active_users":1,"total_api_usage":6},` +
		`{"month":"2026-11","subscription_tier":"pro","monthly_revenue":49.99,"attributed_revenue":0.000000,"active_users":0,"total_api_usage":0}]`
	const target = "/v1/companies/acme/revenue?months=2"
	if a := f.get(target); a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || !strings.Contains(a.body, want) || !strings.Contains(a.body, rows) ||
		!strings.Contains(a.body, `"analysis_date":"2026-11-15T12:00:00Z"}`) {
		t.Errorf("%d %s\nwant\n%s\n%s", a.status, a.body, want, rows)
	}
	for query, months := range map[string]int{"": 12, "?months=1": 1, "?months=36": 36} {
		if a := f.get("/v1/companies/acme/revenue" + query); a.status != http.StatusOK || strings.Count(a.body, `"complete"`) != months {
			t.Errorf("%s: %d %s, want %d months", query, a.status, a.body, months)
		}
	}
	for _, company := range []string{"stranger", "gone", "bare"} {
		if a := f.get("/v1/companies/" + company + "/revenue"); a.status != http.StatusNotFound || !strings.Contains(a.body, "there is no such company") {
			t.Errorf("%s: %d %s", company, a.status, a.body)
		}
	}
	proxy.Refuse(true)
	proxy.Cut()
	if a := f.get(target); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("while ClickHouse is away: %d %s", a.status, a.body)
	}
}

func TestRevenue_WrongRequestsAreRefused(t *testing.T) {
	t.Parallel()
	f := setupAPI(t)
	for _, query := range []string{"months=0", "months=37", "months=-1", "months=", "months", "months=1.5", "months=012", "months=%2B3", "months=1e1", "months=99999999999999999999", "months=x"} {
		a := f.ask("/v1/companies/acme/revenue?" + query)
		if a.status != http.StatusBadRequest || !strings.Contains(a.body, "months is no whole number from 1 to 36") {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	for query, says := range map[string]string{"x=1": "there are months here", "months=1&months=2": "repeated"} {
		if a := f.ask("/v1/companies/acme/revenue?" + query); a.status != http.StatusBadRequest || !strings.Contains(a.body, says) {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	if a := f.ask("/v1/companies/acme/revenue"); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "TENANTFLOW_CLICKHOUSE_DSN is not set") {
		t.Errorf("without ClickHouse: %d %s", a.status, a.body)
	}
	if a := f.ask("/v1/companies/globex/revenue", withToken(acmeToken)); a.status != http.StatusNotFound {
		t.Errorf("outside the scope: %d %s", a.status, a.body)
	}
	if a := f.ask("/v1/companies/acme/revenue", withToken(gateToken)); a.status != http.StatusForbidden {
		t.Errorf("for a token that may not read: %d %s", a.status, a.body)
	}
}
