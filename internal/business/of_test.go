package business

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"tenantflow/internal/analytics"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// noon is in November, so October is the last whole month.
var noon = time.Date(2026, 11, 15, 12, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

func date(text string) time.Time {
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return at
}

// company has holdings written as "2026-08-01 pro 4900"; "-" is no tier.
func company(id, currency, registered string, holdings ...string) Company {
	c := Company{ID: id, Currency: currency, Registered: date(registered), Holdings: []analytics.Holding{{From: date(registered), Tier: tier.Free}}}
	for _, text := range holdings {
		var day, name string
		var price int64
		if _, err := fmt.Sscanf(text, "%s %s %d", &day, &name, &price); err != nil {
			panic(err)
		}
		if name == "-" {
			name = ""
		}
		c.Holdings = append(c.Holdings, analytics.Holding{From: date(day), Tier: name, Price: Money(price)})
	}
	c.Tier = c.Holdings[len(c.Holdings)-1].Tier
	return c
}

func month(text string) analytics.Month {
	m, err := analytics.ParseMonth(text)
	if err != nil {
		panic(err)
	}
	return m
}

func used(company, of, tierName string, users uint64, attributed string) analytics.CompanyUsage {
	return analytics.CompanyUsage{CompanyID: company, MonthUsage: analytics.MonthUsage{Month: month(of), Tier: tierName, ActiveUsers: users, Calls: 1,
		Attributed: analytics.Attributed{Decimal: decimal.RequireFromString(attributed)}}}
}

func text(t testing.TB, value any) string {
	t.Helper()
	b, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// facts are those of a small installation in two currencies, with a tier that has left the catalogue.
func facts() *Facts {
	yes, no, price := true, false, int64(50)
	mb, gb := int64(1<<20), int64(1<<30)
	return &Facts{At: noon, Tiers: tier.Default(),
		Companies: []Company{
			company("acme", "USD", "2026-01-10", "2026-03-01 pro 4900"),
			company("globex", "USD", "2026-02-01", "2026-02-10 pro 4900", "2026-10-20 free 0"), // left
			company("back", "USD", "2025-10-01", "2026-09-01 pro 4900", "2026-10-04 free 0", "2026-10-06 pro 4900"),
			company("grand", "USD", "2026-05-01", "2026-06-01 enterprise 49900", "2026-10-31 pro 4900"), // smaller, and still there
			company("idle", "USD", "2026-06-01"),
			company("shut", "USD", "2026-06-01", "2026-10-11 - 0"), // closed
			company("euro", "EUR", "2026-01-01", "2026-02-01 legacy 2900"),
			company("new", "USD", "2026-11-02", "2026-11-02 pro 4900"),
		},
		Charges: []analytics.Charge{
			{Month: month("2026-10"), Tier: "pro", Currency: "USD", AmountMinor: 14700}, {Month: month("2026-10"), Tier: "enterprise", Currency: "USD", AmountMinor: 49900},
			{Month: month("2026-10"), Tier: "legacy", Currency: "EUR", AmountMinor: 2900}, {Month: month("2026-11"), Tier: "pro", Currency: "USD", AmountMinor: 100},
			{Month: month("2026-12"), Tier: "pro", Currency: "USD", AmountMinor: 77}, // a period that has not begun
		},
		Usage: []analytics.CompanyUsage{
			used("acme", "2026-10", "pro", 3, "1.25"), used("acme", "2026-10", "", 3, "1.25"),
			used("globex", "2026-10", "pro", 2, "0"), used("globex", "2026-10", "free", 1, "0.5"), used("globex", "2026-10", "", 2, "0.5"), // one user in two tiers
			used("euro", "2026-10", "legacy", 4, "0"), used("euro", "2026-10", "", 4, "0"),
			used("stranger", "2026-10", "other", 1, "0"), used("stranger", "2026-10", "", 1, "0"), // in no store but ClickHouse
			used("acme", "2026-11", "pro", 1, "0"), used("acme", "2026-11", "", 1, "0"),
		},
		Measures: []postgres.CompanyMeasure{
			{CompanyID: "acme", Kept: true, Bytes: &gb, Overdue: &no}, {CompanyID: "globex", Kept: true, Bytes: &mb, Overdue: &yes}, {CompanyID: "idle", Bytes: &mb},
			{CompanyID: "shut", Kept: true, Bytes: &mb, Overdue: &no}, {CompanyID: "euro", Kept: true},
		},
		Isolation:  []postgres.IsolationCheck{{Name: "schemas", Checked: 5}, {Name: "tables", Checked: 15}},
		Latency:    []postgres.QueryLatency{{Tier: "pro", Samples: 20, Queries: 900, P95: 1001 * time.Millisecond}, {Tier: "pro", Route: "/v1/x", Samples: 20, Queries: 900, P95: 1001 * time.Millisecond}, {Tier: "free", Samples: 19, Queries: 19, P95: time.Second}, {Tier: "legacy", Samples: 30, Queries: 30, P95: 1500 * time.Microsecond}},
		UsageBytes: 3 * gb, Calls: map[string]int64{"acme": 2, "shut": 1, "stranger": 1}, StoragePrice: &price,
	}
}

func TestOf_EveryMetricHasItsFormula(t *testing.T) {
	t.Parallel()
	r := Of(facts())
	for what, of := range map[string]struct {
		got  any
		want string
	}{
		"months": {[]any{r.ReportedAt, r.Month, r.PresentMonth, len(r.Months)}, `["2026-11-15T12:00:00Z","2026-10","2026-11",26]`},
		"tiers":  {r.Tiers, `[{"subscription_tier":"free","companies":2,"in_catalogue":true},{"subscription_tier":"pro","companies":4,"in_catalogue":true},{"subscription_tier":"enterprise","companies":0,"in_catalogue":true},{"subscription_tier":"legacy","companies":1,"in_catalogue":false}]`},
		// Registered from 2025-08-17 to before 2026-08-17: acme, globex, back, grand, idle, shut, euro.
		"conversion": {r.Conversion, `{"window_days":90,"registered_from":"2025-08-17","registered_before":"2026-08-17","to_tier":"pro","companies":7,"converted":2,"converted_to_paid":4,"percentage":28.57,"target":15.00,"met":true}`},
		// Of acme, globex, back, grand and euro one left; back came back within the month.
		"churn": {r.Churn.Paid, `{"companies_at_start":5,"churned":1,"percentage":20.00,"target":5.00,"met":false}`},
		"churn by tier": {r.Churn.Tiers, `[{"subscription_tier":"free","companies_at_start":2,"churned":1,"percentage":50.00,"target":null,"met":null},` +
			`{"subscription_tier":"pro","companies_at_start":3,"churned":1,"percentage":33.33,"target":5.00,"met":false},` +
			`{"subscription_tier":"enterprise","companies_at_start":1,"churned":0,"percentage":0.00,"target":5.00,"met":true},` +
			`{"subscription_tier":"legacy","companies_at_start":1,"churned":0,"percentage":0.00,"target":5.00,"met":true}]`},
		"retention": {r.Retention, `{"companies":4,"compliant":3,"companies_not_measured":1,"tolerance_days":1,"percentage":75.00,"target":100.00,"met":false}`},
		"isolation": {r.Isolation, `{"leaks":0,"met":true,"covers":"rights in Postgres","checks":[{"name":"schemas","checked":5,"leaks":0},{"name":"tables","checked":15,"leaks":0}]}`},
		"latency": {r.Latency, `[{"subscription_tier":"free","p95_ms":null,"target_ms":2000.00,"met":null,"samples":19,"queries":19,"routes":[],"reason":"too few samples in 24 hours: 20 are needed"},` +
			`{"subscription_tier":"pro","p95_ms":1001.00,"target_ms":1000.00,"met":false,"samples":20,"queries":900,"routes":[{"route":"/v1/x","p95_ms":1001.00,"samples":20,"queries":900}]},` +
			`{"subscription_tier":"enterprise","p95_ms":null,"target_ms":500.00,"met":null,"samples":0,"queries":0,"routes":[],"reason":"too few samples in 24 hours: 20 are needed"},` +
			`{"subscription_tier":"legacy","p95_ms":1.50,"target_ms":2000.00,"met":true,"samples":30,"queries":30,"routes":[]}]`},
		// 100 x 25 + 75 x 20 + 0 x 20 + 50 x 15 + 100 x 10 + 0 x 10 (USD fell from 64600 to 14700), of 100.
		"health": {r.Health, `{"score":57.50,"measured_weight":100,"parts":[{"part":"isolation","weight":25,"score":100.00},{"part":"retention","weight":20,"score":75.00},{"part":"churn","weight":20,"score":0.00},` +
			`{"part":"query_latency","weight":15,"score":50.00},{"part":"conversion","weight":10,"score":100.00},{"part":"recurring_revenue","weight":10,"score":0.00}]}`},
	} {
		if got := text(t, of.got); got != of.want {
			t.Errorf("%s: got\n%s\nwant\n%s", what, got, of.want)
		}
	}
}

func TestOf_RevenueIsByUserTierAndCurrency(t *testing.T) {
	t.Parallel()
	r := Of(facts())
	var got []string
	for _, a := range r.ARPU {
		value := "none"
		if a.ARPU != nil {
			value = a.ARPU.String()
		}
		if a.Revenue != 0 || a.Users != 0 {
			got = append(got, fmt.Sprintf("%s %t %s %s: %s / %d = %s, %s", a.Month, a.Complete, a.Tier, a.Currency, a.Revenue, a.Users, value, a.Attributed))
		}
		if (a.ARPU == nil) != (a.Reason != "") {
			t.Errorf("%+v: a number or a reason", a)
		}
	}
	want := []string{
		"2026-10 true legacy EUR: 29.00 / 4 = 7.25, 0.000000",
		"2026-10 true free USD: 0.00 / 1 = 0.00, 0.500000", "2026-10 true pro USD: 147.00 / 5 = 29.40, 1.250000",
		"2026-10 true enterprise USD: 499.00 / 0 = none, 0.000000", "2026-10 true other USD: 0.00 / 1 = 0.00, 0.000000",
		"2026-11 false pro USD: 1.00 / 1 = 1.00, 0.000000",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, m := range r.Months {
		if m.Month == month("2026-10") && m.Currency == "USD" {
			// acme, back and grand pay 4900; one of globex' users had two tiers.
			if got, want := fmt.Sprint(m.MRR, m.Revenue, m.Users, *m.ARPU, m.Attributed), "147.00 646.00 6 107.67 1.750000"; got != want {
				t.Errorf("all tiers: got %s, want %s", got, want)
			}
		}
	}
	for _, l := range r.Lifetime {
		if l.Tier == "pro" && l.Currency == "USD" {
			// Held when a month began: acme from April, globex from March to October, back in October; grand not before November.
			if got, want := text(t, l), `{"subscription_tier":"pro","currency":"USD","months":12,"revenue":147.00,"company_months":16,"churned":1,"revenue_per_company_month":9.19,"churn_percentage":6.25,"value":147.00}`; got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		}
		if l.Tier == "legacy" && (l.Value != nil || l.Reason != "no company left the tier in these months") {
			t.Errorf("without churn: %+v", l)
		}
	}
}

func TestOf_StorageIsSharedOutAndPriced(t *testing.T) {
	t.Parallel()
	f := facts()
	s := Of(f).Storage
	// 1 GB and 3 MB in Postgres and 3 GB of usage at 0.50 a GB, for 646.00.
	if got, want := text(t, s.Total), `{"companies":4,"postgres_bytes":1076887552,"clickhouse_bytes":3221225472,"monthly_cost":2.001465,"revenue":646.00,"cost_per_revenue":0.003098}`; got != want || s.NotMeasured != 1 || s.Reason != "" {
		t.Errorf("got\n%s\nwant\n%s\n%+v", got, want, s)
	}
	var got []string
	for _, one := range s.Tiers {
		name := "none"
		if one.Tier != nil {
			name = *one.Tier
		}
		got = append(got, fmt.Sprint(name, " ", one.Companies, " ", one.Postgres, " ", one.ClickHouse, " ", one.PerRevenue))
	}
	// Half of the calls are acme's; a quarter each of a closed company and of one that is not known.
	if want := []string{"free 2 2097152 0 <nil>", "pro 1 1073741824 1610612736 0.008503", "enterprise 0 0 0 0.000000", "none 1 1048576 1610612736 <nil>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	f.StoragePrice = nil
	if s := Of(f).Storage; s.Total.Cost != nil || s.Total.PerRevenue != nil || s.PriceMinor != nil || !strings.Contains(s.Reason, "TENANTFLOW_STORAGE_PRICE_MINOR is not set") {
		t.Errorf("without a price: %+v", s)
	}
}

// There is nothing to divide by: every number has a reason in its place, and JSON can hold all of it.
func TestOf_AnEmptyInstallationHasReasons(t *testing.T) {
	t.Parallel()
	price := int64(5)
	r := Of(&Facts{At: noon, Tiers: tier.Default(), StoragePrice: &price, Isolation: []postgres.IsolationCheck{{Name: "schemas"}}})
	got := text(t, r)
	for _, want := range []string{`"percentage":null,"target":15.00,"met":null,"reason":"no company was registered in these days"`, `"reason":"no company had it when the month began"`,
		`"value":null,"reason":"no company had the tier when one of these months began"`, `"cost_per_revenue":null`, `"reason":"nothing was charged in 2026-10"`, `"reason":"there is no company that can be measured"`,
		`"reason":"no tier has enough samples"`, `"reason":"there was no recurring revenue when the month began"`, `"arpu":null`, `"accuracy":null`, `"health":{"score":null,"measured_weight":25,"parts":[`, `"reason":"parts of a weight of 50 have to be measured"`} {
		if !strings.Contains(got, want) {
			t.Errorf("it lacks %s:\n%s", want, got)
		}
	}
	if len(r.Months) != 13 || len(r.ARPU) != 6 {
		t.Errorf("%d months, %d averages", len(r.Months), len(r.ARPU))
	}
	var back Report
	if err := json.Unmarshal([]byte(got), &back); err != nil || text(t, &back) != got {
		t.Errorf("read back it is another one: %v\n%s", err, text(t, &back))
	}
}

// Over any history the recurring revenue is the sum of that of the companies' own reports, all that is charged is in one month, and no share is above
// the whole.
func TestOf_SumsAreThoseOfTheCompanies(t *testing.T) {
	t.Parallel()
	names := []string{"subscription.upgraded", "subscription.downgraded", "subscription.renewed", "subscription.cancelled", "subscription.expired", "subscription.closed"}
	rapid.Check(t, func(t *rapid.T) {
		f := &Facts{At: noon, Tiers: tier.Default()}
		first, last := analytics.MonthOf(noon)-12, analytics.MonthOf(noon)
		want := map[string]Money{}
		for i := range rapid.IntRange(0, 8).Draw(t, "companies") {
			currency := rapid.SampledFrom([]string{"USD", "EUR"}).Draw(t, "currency")
			at := noon.AddDate(0, 0, -rapid.IntRange(0, 700).Draw(t, "registered"))
			var effects []analytics.Effect
			when := at
			for range rapid.IntRange(0, 12).Draw(t, "effects") {
				when = when.AddDate(0, 0, rapid.IntRange(0, 60).Draw(t, "days"))
				if when.After(noon) {
					break
				}
				price := Money(rapid.SampledFrom([]int64{0, 2900, 4900, 49900}).Draw(t, "price"))
				effects = append(effects, analytics.Effect{At: when, Event: rapid.SampledFrom(names).Draw(t, "event"), Tier: rapid.SampledFrom([]string{"pro", "enterprise", "legacy", ""}).Draw(t, "tier"), PriceMinor: &price})
			}
			c := Company{ID: fmt.Sprint("c-", i), Currency: currency, Registered: at, Holdings: analytics.Holdings(at, effects, nil)}
			c.Tier = c.Holdings[len(c.Holdings)-1].Tier
			f.Companies = append(f.Companies, c)
			for _, m := range analytics.Movements(effects, nil, first, last) {
				want[m.Month.String()+currency] += m.End
			}
		}
		r := Of(f)
		for _, m := range r.Months {
			var tiers Money
			for _, one := range m.Tiers {
				tiers += one.MRR
			}
			if m.MRR != want[m.Month.String()+m.Currency] || tiers != m.MRR {
				t.Fatalf("%s %s: %s, of the tiers %s, want %s", m.Month, m.Currency, m.MRR, tiers, want[m.Month.String()+m.Currency])
			}
			for _, rate := range append([]MonthTier{{Churn: m.Churn}}, m.Tiers...) {
				if rate.Churn.Churned > rate.Churn.AtStart || rate.Churn.Percentage != nil && (*rate.Churn.Percentage < 0 || *rate.Churn.Percentage > whole) {
					t.Fatalf("%s: %+v", m.Month, rate.Churn)
				}
			}
		}
		if r.Health.Score != nil && (*r.Health.Score < 0 || *r.Health.Score > whole) {
			t.Fatalf("%+v", r.Health)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
	})
}
