package business

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tenantflow/internal/analytics"
)

// The time of all business metrics over 200 companies with a schema each and 25 users, who have used something on every day of a year, which is
// 1.8 million daily totals; each company has 24 charges and renewals. How many milliseconds 95 % of the reports stay below, and what
// the pure part of it takes.
//
//	go test ./internal/business -run '^$' -bench Report -benchtime 100x
func BenchmarkReport(b *testing.B) {
	const companies, users, days = 200, 25, 365
	f := setup(b)
	f.exec(b,
		fmt.Sprintf("INSERT INTO companies (company_id, name, billing_email, created_at) SELECT 'bm-' || c, 'C', 'c@x', now() - interval '2 years' FROM generate_series(0, %d) AS c", companies-1),
		fmt.Sprintf("INSERT INTO subscriptions (company_id, tier, period_start) SELECT 'bm-' || c, (ARRAY['free', 'pro', 'enterprise'])[1 + c %% 3], date_trunc('month', now()) FROM generate_series(0, %d) AS c", companies-1),
		fmt.Sprintf(`INSERT INTO billing_transactions (transaction_id, company_id, transaction_type, new_tier, amount_minor, currency, lines, period_start, created_at)
			SELECT 't-' || c || '-' || m, 'bm-' || c, 'renewal', 'pro', 4900 + m, 'USD', '[]', now() - m * interval '1 month', now() - m * interval '1 month' FROM generate_series(0, %d) AS c, generate_series(0, 23) AS m`, companies-1),
		`INSERT INTO subscription_events (company_id, event, event_time, data) SELECT company_id, 'subscription.renewed', created_at, '{"tier": "pro", "price_minor": 4900}' FROM billing_transactions ORDER BY created_at`,
		"INSERT INTO query_samples (tier, route, took, weight) SELECT (ARRAY['free', 'pro', 'enterprise'])[1 + n % 3], '/v1/r-' || n % 8, n * interval '1 microsecond', 3 FROM generate_series(1, 20000) AS n")
	for n := range companies {
		f.schema(b, fmt.Sprint("bm-", n))
	}
	at := time.Now()
	for from := 0; from < days; from += 73 {
		if err := f.Conn.Exec(b.Context(), `INSERT INTO usage_daily_store (company_id, user_id, subscription_tier, day, api_calls, data_points, revenue, last_activity)
			SELECT concat('bm-', toString(c)), concat('u-', toString(c), '-', toString(u)), 'pro', toDate(?) - d, 700 + (c + u) % 20 * 10 + d, 9, 1, now64(3)
			FROM (SELECT number % ? AS c, intDiv(number, ?) % ? AS u, intDiv(number, ?) + ? AS d FROM numbers(?))`,
			at.UTC().Format(time.DateOnly), companies, companies, users, companies*users, from, companies*users*73); err != nil {
			b.Fatal(err)
		}
	}
	report := f.report(b, at)
	for _, a := range report.ARPU {
		if a.Complete && a.Tier == "pro" && (a.Users != companies*users || a.ARPU == nil) {
			b.Fatalf("%+v", a)
		}
	}
	if report.Month != analytics.MonthOf(at)-1 || report.Retention.Companies != companies {
		b.Fatalf("%+v", report.Retention)
	}
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		f.report(b, at)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
}
