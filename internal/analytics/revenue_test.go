package analytics_test

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"tenantflow/internal/analytics"
)

// now is the time of the analyses of these tests: in the month 2026-11.
var now = time.Date(2026, 11, 30, 2, 30, 0, 0, time.UTC)

func month(t *testing.T, text string) analytics.Month {
	t.Helper()
	m, err := analytics.ParseMonth(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func charge(t *testing.T, when, tier string, amount analytics.Money) analytics.Charge {
	t.Helper()
	return analytics.Charge{Month: month(t, when), Tier: tier, Currency: "USD", AmountMinor: amount}
}

func attributed(t *testing.T, text string) analytics.Attributed {
	t.Helper()
	d, err := decimal.NewFromString(text)
	if err != nil {
		t.Fatal(err)
	}
	return analytics.Attributed{Decimal: d}
}

// text is a value as it is answered.
func text(t *testing.T, value any) string {
	t.Helper()
	got, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestRevenue_IsChargedMoneyByMonthAndTier(t *testing.T) {
	t.Parallel()
	pro := analytics.Money(4900)
	facts := &analytics.RevenueFacts{CompanyID: "acme", Currency: "USD", Since: time.Date(2026, 7, 20, 0, 0, 0, 0, time.UTC),
		Charges: []analytics.Charge{
			charge(t, "2026-08", "pro", 4900), charge(t, "2026-09", "pro", 4900), charge(t, "2026-09", "enterprise", 22501), charge(t, "2026-11", "enterprise", 49900),
			{Month: month(t, "2026-10"), Tier: "pro", Currency: "EUR", AmountMinor: 700},
		},
		Usage: []analytics.MonthUsage{
			{Month: month(t, "2026-09"), Tier: "pro", ActiveUsers: 2, Calls: 10, Attributed: attributed(t, "0.1")},
			{Month: month(t, "2026-09"), Tier: "enterprise", ActiveUsers: 2, Calls: 5, Attributed: attributed(t, "0.000001")},
			{Month: month(t, "2026-09"), ActiveUsers: 3, Calls: 15, Attributed: attributed(t, "0.100001")},
			{Month: month(t, "2026-10"), Tier: "free", ActiveUsers: 1, Calls: 7},
			{Month: month(t, "2026-10"), ActiveUsers: 1, Calls: 7},
		},
		Effects: []analytics.Effect{{At: time.Date(2026, 8, 3, 0, 0, 0, 0, time.UTC), Event: "subscription.upgraded", Tier: "pro", PriceMinor: &pro}},
	}
	want := `{"company_id":"acme","currency":"USD","period_months":4,"total_revenue":822.01,"avg_monthly_revenue":205.50,"attributed_revenue":0.100001,` +
		`"revenue_trend":{"months":3,"slope_per_month":-24.50,"growth_percentage":-100.00},` +
		`"tier_distribution":[{"subscription_tier":"enterprise","revenue":724.01,"percentage":88.08,"months":2},{"subscription_tier":"pro","revenue":98.00,"percentage":11.92,"months":2},` +
		`{"subscription_tier":"free","revenue":0.00,"percentage":0.00,"months":0}],` +
		`"monthly_breakdown":[{"month":"2026-08","subscription_tier":"pro","monthly_revenue":49.00,"attributed_revenue":0.000000,"active_users":0,"total_api_usage":0},` +
		`{"month":"2026-09","subscription_tier":"enterprise","monthly_revenue":225.01,"attributed_revenue":0.000001,"active_users":2,"total_api_usage":5},` +
		`{"month":"2026-09","subscription_tier":"pro","monthly_revenue":49.00,"attributed_revenue":0.100000,"active_users":2,"total_api_usage":10},` +
		`{"month":"2026-10","subscription_tier":"free","monthly_revenue":0.00,"attributed_revenue":0.000000,"active_users":1,"total_api_usage":7},` +
		`{"month":"2026-11","subscription_tier":"enterprise","monthly_revenue":499.00,"attributed_revenue":0.000000,"active_users":0,"total_api_usage":0}],` +
		`"monthly_totals":[{"month":"2026-08","complete":true,"revenue":49.00,"attributed_revenue":0.000000,"active_users":0,"total_api_usage":0},` +
		`{"month":"2026-09","complete":true,"revenue":274.01,"attributed_revenue":0.100001,"active_users":3,"total_api_usage":15},` +
		`{"month":"2026-10","complete":true,"revenue":0.00,"attributed_revenue":0.000000,"active_users":1,"total_api_usage":7},` +
		`{"month":"2026-11","complete":false,"revenue":499.00,"attributed_revenue":0.000000,"active_users":0,"total_api_usage":0}],` +
		`"mrr_movements":[{"month":"2026-08","start":0.00,"new":49.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00},` +
		`{"month":"2026-09","start":49.00,"new":0.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00},` +
		`{"month":"2026-10","start":49.00,"new":0.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00},` +
		`{"month":"2026-11","start":49.00,"new":0.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00}],` +
		`"forecast":null,"forecast_reason":"whole months since the first charge: 3; a forecast needs 4",` +
		`"other_currencies":[{"currency":"EUR","revenue":7.00}],"analysis_date":"2026-11-30T02:30:00Z"}`
	if got := text(t, analytics.RevenueOf(facts, 4, now)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRevenue_HasAnAnswerWhereThereIsLittle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		charges []analytics.Charge
		months  int
		since   time.Time
		want    []string
	}{
		"a company with nothing": {nil, 2, now, []string{`"total_revenue":0.00,"avg_monthly_revenue":0.00,"attributed_revenue":0.000000`,
			`"revenue_trend":{"months":0,"slope_per_month":null,"growth_percentage":null},"tier_distribution":[],"monthly_breakdown":[],"monthly_totals":[{"month":"2026-10"`,
			`"forecast":null,"forecast_reason":"whole months since the first charge: 0`}},
		"the present month alone": {[]analytics.Charge{charge(t, "2026-11", "pro", 4900)}, 1, now, []string{`"total_revenue":49.00,"avg_monthly_revenue":49.00`,
			`"revenue_trend":{"months":0,"slope_per_month":null,"growth_percentage":null}`, `"forecast":null`}},
		"a charge of before the months": {[]analytics.Charge{charge(t, "2026-09", "pro", 4900)}, 1, now, []string{`"total_revenue":0.00`, `"tier_distribution":[]`, `"growth_percentage":-100.00`}},
		"a tier that no catalogue has": {[]analytics.Charge{charge(t, "2026-10", "gone", 100)}, 3, now, []string{
			`"tier_distribution":[{"subscription_tier":"gone","revenue":1.00,"percentage":100.00,"months":1}]`, `"avg_monthly_revenue":0.33`, `"growth_percentage":null`}},
		"credits above charges": {[]analytics.Charge{charge(t, "2026-10", "pro", -500), charge(t, "2026-11", "pro", 200)}, 2, now, []string{
			`"total_revenue":-3.00,"avg_monthly_revenue":-1.50`, `"percentage":0.00,"months":2`}},
		"growth from a credit": {[]analytics.Charge{charge(t, "2026-09", "pro", -500), charge(t, "2026-10", "pro", 200)}, 3, now, []string{`"slope_per_month":7.00,"growth_percentage":null`}},
		"months before the registration": {[]analytics.Charge{charge(t, "2026-09", "pro", 100), charge(t, "2026-10", "pro", 300)}, 12,
			time.Date(2026, 9, 30, 0, 0, 0, 0, time.UTC), []string{`"revenue_trend":{"months":2,"slope_per_month":2.00,"growth_percentage":200.00}`, `"avg_monthly_revenue":0.33`}},
		"free months are months of the trend": {[]analytics.Charge{charge(t, "2026-10", "pro", 300)}, 12, time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC),
			[]string{`"revenue_trend":{"months":3,"slope_per_month":1.50,"growth_percentage":null}`}},
		"four whole months": {[]analytics.Charge{charge(t, "2026-07", "pro", 4900), charge(t, "2026-10", "pro", 4900)}, 1, now,
			[]string{`"forecast":{"method":"mean of naive, drift and damped trend","history_months":4,"interval_percentage":80,"months":[{"month":"2026-11","revenue":`}},
	} {
		got := text(t, analytics.RevenueOf(&analytics.RevenueFacts{CompanyID: "acme", Currency: "USD", Since: c.since, Charges: c.charges, PaysNow: 4900}, c.months, now))
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: got\n%s\nwithout\n%s", name, got, want)
			}
		}
	}
}

// Every way to add the months up gives the same total, and the slope is that of rational arithmetic.
func TestRevenue_AddsUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		months := rapid.IntRange(1, analytics.MaxMonths).Draw(t, "months")
		present := analytics.MonthOf(now)
		charges := rapid.SliceOf(rapid.Custom(func(t *rapid.T) analytics.Charge {
			return analytics.Charge{Month: present - analytics.Month(rapid.IntRange(0, 40).Draw(t, "ago")), Tier: rapid.SampledFrom([]string{"free", "pro", "gone"}).Draw(t, "tier"),
				Currency: rapid.SampledFrom([]string{"USD", "USD", "EUR"}).Draw(t, "currency"), AmountMinor: analytics.Money(rapid.Int64Range(-5000, 1_000_000_000_000).Draw(t, "amount"))}
		})).Draw(t, "charges")
		since := (present - analytics.Month(rapid.IntRange(0, 40).Draw(t, "since"))).Start()
		r := analytics.RevenueOf(&analytics.RevenueFacts{Currency: "USD", Since: since, Charges: charges}, months, now)
		var want analytics.Money
		for _, c := range charges {
			if c.Currency == "USD" && c.Month > present-analytics.Month(months) {
				want += c.AmountMinor
			}
		}
		var byTier, byRow, byMonth analytics.Money
		for _, d := range r.TierDistribution {
			byTier += d.Revenue
		}
		for _, b := range r.MonthlyBreakdown {
			byRow += b.Revenue
		}
		for _, m := range r.MonthlyTotals {
			byMonth += m.Revenue
		}
		if r.TotalRevenue != want || byTier != want || byRow != want || byMonth != want || len(r.MonthlyTotals) != months {
			t.Fatalf("total %s, by tier %s, by row %s, by month %s, want %s", r.TotalRevenue, byTier, byRow, byMonth, want)
		}
		if off := new(big.Rat).Sub(big.NewRat(int64(want), int64(months)), big.NewRat(int64(r.AvgMonthlyRevenue), 1)); off.Abs(off).Cmp(big.NewRat(1, 2)) > 0 {
			t.Fatalf("average %s of %s in %d months", r.AvgMonthlyRevenue, want, months)
		}
		checkSlope(t, r)
	})
}

// checkSlope holds the slope against the sum of weighted differences from the middle, which is another form of the formula.
func checkSlope(t *rapid.T, r *analytics.Revenue) {
	t.Helper()
	n := r.RevenueTrend.Months
	if n < 2 {
		if r.RevenueTrend.SlopePerMonth != nil {
			t.Fatalf("the slope of %d months is %s", n, *r.RevenueTrend.SlopePerMonth)
		}
		return
	}
	over := r.MonthlyTotals[len(r.MonthlyTotals)-1-n : len(r.MonthlyTotals)-1]
	above, below := new(big.Rat), new(big.Rat)
	for i, m := range over {
		off := new(big.Rat).Sub(big.NewRat(int64(i), 1), big.NewRat(int64(n-1), 2))
		above.Add(above, new(big.Rat).Mul(off, big.NewRat(int64(m.Revenue), 1)))
		below.Add(below, new(big.Rat).Mul(off, off))
	}
	exact := new(big.Rat).Quo(above, below)
	if off := new(big.Rat).Sub(exact, big.NewRat(int64(*r.RevenueTrend.SlopePerMonth), 1)); off.Abs(off).Cmp(big.NewRat(1, 2)) > 0 {
		t.Fatalf("slope %s, exact %s", *r.RevenueTrend.SlopePerMonth, exact.FloatString(4))
	}
}

func TestMonth_IsACalendarMonthInUTC(t *testing.T) {
	t.Parallel()
	west := time.FixedZone("west", -8*3600)
	if got := analytics.MonthOf(time.Date(2026, 12, 31, 20, 0, 0, 0, west)).String(); got != "2027-01" {
		t.Errorf("got %s, want the month in UTC, 2027-01", got)
	}
	for _, bad := range []string{"", "2026-13", "2026", "2026-1", "2026-01-01"} {
		if m, err := analytics.ParseMonth(bad); err == nil {
			t.Errorf("%q is read as %s", bad, m)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(-60_000_000_000, 250_000_000_000).Draw(t, "at"), 0).UTC()
		m := analytics.MonthOf(at)
		if at.Before(m.Start()) || !at.Before((m + 1).Start()) {
			t.Fatalf("%s is not in %s", at, m)
		}
		if read, err := analytics.ParseMonth(m.String()); err != nil || read != m {
			t.Fatalf("%s is read as %s (%v)", m, read, err)
		}
	})
}

// What is charged already is no matter of forecasting, and a company that pays nothing now is charged nothing in the months to come.
func TestRevenue_AForecastKnowsWhatIsSettled(t *testing.T) {
	t.Parallel()
	facts := &analytics.RevenueFacts{CompanyID: "acme", Currency: "USD", Since: time.Date(2026, 6, 20, 0, 0, 0, 0, time.UTC),
		Charges: []analytics.Charge{charge(t, "2026-06", "pro", 4900), charge(t, "2026-07", "pro", 4900), charge(t, "2026-08", "pro", 4900),
			charge(t, "2026-09", "pro", 4900), charge(t, "2026-10", "pro", 4900)},
		PaysNow: 4900}
	months := func(facts *analytics.RevenueFacts) string {
		t.Helper()
		r := analytics.RevenueOf(facts, 3, now)
		if r.Forecast == nil {
			return r.ForecastReason
		}
		return text(t, r.Forecast.Months[:2])
	}
	const november, december = `{"month":"2026-11","revenue":%,"low":%,"high":%}`, `{"month":"2026-12","revenue":49.00,"low":49.00,"high":49.00}`
	if got, want := months(facts), "["+strings.ReplaceAll(november, "%", "49.00")+","+december+"]"; got != want {
		t.Errorf("nothing charged yet: %s, want %s", got, want)
	}
	facts.Charges = append(facts.Charges, charge(t, "2026-11", "enterprise", 49900))
	if got, want := months(facts), "["+strings.ReplaceAll(november, "%", "499.00")+","+december+"]"; got != want {
		t.Errorf("charged already: %s, want %s", got, want)
	}
	facts.PaysNow = 0
	if got := months(facts); got != "the company pays nothing a month now" {
		t.Errorf("closed: %s", got)
	}
}
