package analytics

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// The time of the analyses of a company among 200 with 25 users each that have used something on every day of a year, which is 1.8 million
// daily totals: how many milliseconds 95 % of them stay below.
//
//	go test ./internal/analytics -run '^$' -bench ACompany -benchtime 400x
func BenchmarkAnalyst_ACompany(b *testing.B) {
	const companies, users, days = 200, 25, 365
	f := setup(b)
	f.exec(b,
		fmt.Sprintf("INSERT INTO companies (company_id, name, billing_email) SELECT 'c-' || c, 'C', 'c@x' FROM generate_series(0, %d) AS c", companies-1),
		fmt.Sprintf("INSERT INTO subscriptions (company_id, tier, period_start) SELECT 'c-' || c, 'free', date_trunc('month', now()) FROM generate_series(0, %d) AS c", companies-1),
		fmt.Sprintf("INSERT INTO user_directory (user_id, company_id) SELECT 'u-' || c || '-' || u, 'c-' || c FROM generate_series(0, %d) AS c, generate_series(0, %d) AS u", companies-1, users-1))
	f.exec(b, fmt.Sprintf(`INSERT INTO billing_transactions (transaction_id, company_id, transaction_type, new_tier, amount_minor, currency, lines, period_start, created_at)
			SELECT 't-' || c || '-' || m, 'c-' || c, 'renewal', 'pro', 4900 + m, 'USD', '[]', now() - m * interval '1 month', now() - m * interval '1 month' FROM generate_series(0, %d) AS c, generate_series(0, 23) AS m`, companies-1),
		`INSERT INTO subscription_events (company_id, event, event_time, data) SELECT company_id, 'subscription.renewed', created_at, '{"tier": "pro", "price_minor": 4900}' FROM billing_transactions`)
	at := time.Now()
	for from := 0; from < days; from += 73 {
		if err := f.Conn.Exec(b.Context(), `INSERT INTO usage_daily_store (company_id, user_id, subscription_tier, day, api_calls, data_points, revenue, last_activity)
			SELECT concat('c-', toString(c)), concat('u-', toString(c), '-', toString(u)), 'free', toDate(?) - d, 700 + (c + u) % 20 * 10 + d, 9, 1, now64(3)
			FROM (SELECT number % ? AS c, intDiv(number, ?) % ? AS u, intDiv(number, ?) + ? AS d FROM numbers(?))`,
			day(at), companies, companies, users, companies*users, from, companies*users*73); err != nil {
			b.Fatal(err)
		}
	}
	for name, analyse := range map[string]func(ctx context.Context, company string) (int, error){
		"upsell": func(ctx context.Context, company string) (int, error) {
			found, err := f.Upsell(ctx, company, at)
			return len(found), err
		},
		"revenue": func(ctx context.Context, company string) (int, error) {
			_, err := f.Revenue(ctx, company, DefaultMonths, at)
			return 0, err
		},
		"churn": func(ctx context.Context, company string) (int, error) {
			report, err := f.ChurnRisk(ctx, company, at)
			return report.TotalAtRiskUsers, err
		},
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			found := 0
			for n := 0; b.Loop(); n++ {
				began := time.Now()
				some, err := analyse(b.Context(), fmt.Sprint("c-", n*37%companies))
				if err != nil {
					b.Fatal(err)
				}
				took, found = append(took, time.Since(began)), found+some
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
			b.ReportMetric(float64(found)/float64(len(took)), "users/op")
		})
	}
}

// The time of the report on accuracy over a year of 200 companies with 25 users each and a forecast for every month, in milliseconds: 60,000 users judged and
// 7,200 forecasts.
//
//	go test ./internal/analytics -run '^$' -bench Accuracy -benchtime 50x
func BenchmarkAnalyst_Accuracy(b *testing.B) {
	f := setup(b)
	at := MonthOf(time.Now())
	months := `(SELECT m, to_char(timestamptz '` + at.Start().Format(time.RFC3339) + `' AT TIME ZONE 'UTC' - (m + 2) * interval '1 month', 'YYYY-MM') AS month FROM generate_series(0, 11) AS m) AS t`
	f.exec(b,
		"INSERT INTO companies (company_id, name, billing_email) SELECT 'c-' || c, 'C', 'c@x' FROM generate_series(0, 199) AS c",
		`INSERT INTO recommendations (recommendation_id, company_id, user_id, kind, month, tier, score, flagged, idle, detail, outcome, scored_at)
			SELECT gen_random_uuid(), 'c-' || c, 'u-' || c || '-' || u, 'churn', month, 'free', (c * 37 + u * 101 + m * 13) % 10001 / 100.0, (c + u) % 7 = 0, (c + m) % 5 = 0, '{}', (c * u + m) % 9 = 0, now()
			FROM generate_series(0, 199) AS c, generate_series(0, 24) AS u, `+months,
		`INSERT INTO forecasts (company_id, made_month, month, currency, value_minor, low_minor, high_minor, naive_minor, steps_minor, history_months, actual_minor, scored_at)
			SELECT 'c-' || c, to_char(to_date(month, 'YYYY-MM') - h * interval '1 month', 'YYYY-MM'), month, 'USD', 100 + c, c, 500, 90 + c, 70, 20, 100 + c + m, now()
			FROM generate_series(0, 199) AS c, generate_series(1, 3) AS h, `+months, "ANALYZE")
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		if r, err := f.Accuracy(b.Context(), at.Start()); err != nil || r.Churn.Users != 60_000 {
			b.Fatalf("%+v, %v", r, err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
}
