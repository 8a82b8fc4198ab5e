package analytics

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/directory"
)

// charge books a charge of the company acme for a period that begins at a time.
func (f fixture) charge(t testing.TB, id, tierName string, amount int64, start string) {
	t.Helper()
	f.exec(t, fmt.Sprintf(`INSERT INTO billing_transactions (transaction_id, company_id, transaction_type, new_tier, amount_minor, currency, lines, period_start, created_at)
		VALUES ('%s', 'acme', 'renewal', '%s', %d, 'USD', '[]', '%s', '%[4]s')`, id, tierName, amount, start))
}

// moment is a time of a test.
func moment(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestRevenue_FromTheStores(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t)
	f.exec(t, "UPDATE companies SET created_at = '2026-08-10' WHERE company_id = 'acme'",
		`INSERT INTO subscription_events (company_id, event, event_time, data) VALUES ('acme', 'company.created', '2026-08-10', '{"tier": "free"}'),
			('acme', 'subscription.upgraded', '2026-09-30 23:59:59+00', '{"to": "pro", "price_minor": 4900}'), ('globex', 'subscription.upgraded', '2026-09-30', '{"to": "pro", "price_minor": 1}')`)
	f.charge(t, "t1", "pro", 4900, "2026-09-30T23:59:59Z")
	f.charge(t, "t2", "pro", 4900, "2026-10-31T23:59:59Z")
	f.charge(t, "t3", "enterprise", 1, "2026-10-31T23:59:59Z")
	use := func(user, tierName, from string, calls int, voided bool) {
		t.Helper()
		f.Plant(t, analyticstest.Use{Company: "acme", User: user, Tier: tierName, From: moment(t, from), Calls: calls, Voided: voided})
	}
	use("light", "free", "2026-08-31T23:59:59.9Z", 9, false) // before the months
	use("light", "free", "2026-09-01T00:00:00Z", 1, false)
	use("heavy", "free", "2026-09-30T00:00:00Z", 2, false)
	use("heavy", "pro", "2026-09-30T23:59:59.9Z", 3, false) // one user of two tiers
	use("left", "pro", "2026-10-01T00:00:00Z", 4, false)    // who is in no directory any more
	use("voided", "pro", "2026-10-02T00:00:00Z", 5, false)
	use("voided", "pro", "2026-10-02T00:00:00Z", 5, true) // nothing is left: not active
	use("idler", "pro", "2026-10-03T00:00:00Z", 5, false)
	use("idler", "pro", "2026-10-03T00:00:00Z", 2, true)
	use("heavy", "pro", "2026-11-30T23:59:59Z", 6, false)
	use("heavy", "pro", "2026-12-01T00:00:00Z", 7, false) // not yet
	f.Plant(t, analyticstest.Use{Company: "globex", User: "g-1", Tier: "pro", From: moment(t, "2026-10-05T00:00:00Z"), Calls: 8})
	const want = `{"company_id":"acme","currency":"USD","period_months":3,"total_revenue":98.01,"avg_monthly_revenue":32.67,"attributed_revenue":4.750000,` +
		`"revenue_trend":{"months":2,"slope_per_month":0.01,"growth_percentage":0.02},` +
		`"tier_distribution":[{"subscription_tier":"pro","revenue":98.00,"percentage":99.99,"months":2},{"subscription_tier":"enterprise","revenue":0.01,"percentage":0.01,"months":1},{"subscription_tier":"free","revenue":0.00,"percentage":0.00,"months":0}],` +
		`"monthly_breakdown":[{"month":"2026-09","subscription_tier":"free","monthly_revenue":0.00,"attributed_revenue":0.750000,"active_users":2,"total_api_usage":3},` +
		`{"month":"2026-09","subscription_tier":"pro","monthly_revenue":49.00,"attributed_revenue":0.750000,"active_users":1,"total_api_usage":3},` +
		`{"month":"2026-10","subscription_tier":"enterprise","monthly_revenue":0.01,"attributed_revenue":0.000000,"active_users":0,"total_api_usage":0},` +
		`{"month":"2026-10","subscription_tier":"pro","monthly_revenue":49.00,"attributed_revenue":1.750000,"active_users":2,"total_api_usage":7},` +
		`{"month":"2026-11","subscription_tier":"pro","monthly_revenue":0.00,"attributed_revenue":1.500000,"active_users":1,"total_api_usage":6}],` +
		`"monthly_totals":[{"month":"2026-09","complete":true,"revenue":49.00,"attributed_revenue":1.500000,"active_users":2,"total_api_usage":6},` +
		`{"month":"2026-10","complete":true,"revenue":49.01,"attributed_revenue":1.750000,"active_users":2,"total_api_usage":7},` +
		`{"month":"2026-11","complete":false,"revenue":0.00,"attributed_revenue":1.500000,"active_users":1,"total_api_usage":6}],` +
		`"mrr_movements":[{"month":"2026-09","start":0.00,"new":49.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00},` +
		`{"month":"2026-10","start":49.00,"new":0.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00},` +
		`{"month":"2026-11","start":49.00,"new":0.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00}],` +
		`"forecast":null,"forecast_reason":"whole months since the first charge: 2; a forecast needs 4","analysis_date":"2026-11-30T23:59:59Z"}`
	found, err := f.Revenue(t.Context(), "acme", 3, moment(t, "2026-11-30T23:59:59.5Z"))
	if got := textOf(t, found, err); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, company := range []string{"idle", "shut"} { // nothing was charged, and nothing used
		found, err := f.Revenue(t.Context(), company, DefaultMonths, moment(t, "2026-11-30T23:59:59Z"))
		if got := textOf(t, found, err); !strings.Contains(got, `"total_revenue":0.00`) || len(found.MonthlyTotals) != DefaultMonths || len(found.MonthlyBreakdown) != 0 {
			t.Errorf("%s: %s", company, got)
		}
	}
	for _, company := range []string{"stranger", "gone", "bare", "ACME"} {
		if found, err := f.Revenue(t.Context(), company, 3, time.Now()); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("%s: %+v, %v, want an unknown company", company, found, err)
		}
	}
}

// Records of before prices were kept say what is paid now by the subscription, also of a tier that has left the catalogue.
func TestRevenue_OfRecordsWithoutPrices(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t)
	f.exec(t, "UPDATE subscriptions SET price_minor = 2900 WHERE company_id = 'acme'",
		`INSERT INTO subscription_events (company_id, event, event_time, data) VALUES ('acme', 'subscription.upgraded', '2026-06-01', '{"to": "legacy"}')`)
	for n, start := range []string{"2026-06-01", "2026-07-01", "2026-08-01", "2026-09-01", "2026-10-01"} {
		f.charge(t, fmt.Sprint("t", n), "legacy", 2900, start)
	}
	at := moment(t, "2026-11-30T00:00:00Z")
	found, err := f.Revenue(t.Context(), "acme", 3, at)
	if err != nil || found.MRRMovements[2].End != 2900 || found.Forecast == nil || found.Forecast.Months[1].Revenue != 2900 {
		t.Errorf("%+v, %v", found, err)
	}
	f.exec(t, "UPDATE subscriptions SET closed_at = '2026-11-29' WHERE company_id = 'acme'")
	if found, err = f.Revenue(t.Context(), "acme", 3, at); err != nil || found.Forecast != nil || found.ForecastReason != "the company pays nothing a month now" {
		t.Errorf("closed: %+v, %v", found, err)
	}
}

// Where ClickHouse is away there is no half of an answer.
func TestRevenue_WithoutClickHouseThereIsNoAnswer(t *testing.T) {
	t.Parallel()
	found, err := withoutClickHouse(t).Revenue(t.Context(), "acme", 1, time.Now())
	if err == nil || !strings.Contains(err.Error(), "read the usage of company acme by month: ask ClickHouse at") {
		t.Errorf("%+v, %v", found, err)
	}
}
