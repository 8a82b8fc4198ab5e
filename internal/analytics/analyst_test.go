package analytics

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/jackc/pgx/v5"

	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// A fixture is an Analyst over stores of the test's own.
type fixture struct {
	*analyticstest.World
	*Analyst
	sql *pgx.Conn
}

func setup(t testing.TB) fixture {
	t.Helper()
	f := fixture{World: analyticstest.New(t)}
	store, conn := analyticstest.Books(t)
	f.sql = conn
	usage, err := OpenUsage(f.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = usage.Close() })
	f.Analyst = New(store, usage, tier.Default())
	return f
}

func (f fixture) exec(t testing.TB, statements ...string) {
	t.Helper()
	analyticstest.Exec(t, f.sql, statements...)
}

// companies are one of each kind.
func (f fixture) companies(t testing.TB) {
	t.Helper()
	f.exec(t,
		`INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('globex', 'G', 'g@x'), ('grand', 'E', 'e@x'), ('shut', 'S', 's@x'), ('gone', '', ''), ('bare', 'B', 'b@x'), ('idle', 'I', 'i@x')`,
		`INSERT INTO subscriptions (company_id, tier, period_start) SELECT c, t, date_trunc('month', now()) FROM (VALUES ('acme', 'free'), ('globex', 'free'), ('grand', 'enterprise'), ('shut', 'free'), ('idle', 'pro')) AS v (c, t)`,
		`INSERT INTO user_directory (user_id, company_id) VALUES ('heavy', 'acme'), ('light', 'acme'), ('idler', 'acme'), ('voided', 'acme'), ('edge', 'acme'), ('two-tiers', 'acme'), ('g-1', 'globex'), ('e-1', 'grand'), ('s-1', 'shut'), ('i-1', 'idle')`,
		`INSERT INTO user_directory (user_id, company_id, subscription_status) VALUES ('suspended', 'acme', 'suspended')`,
		`UPDATE companies SET status = 'closed' WHERE company_id = 'shut'`,
		`UPDATE companies SET status = 'purged' WHERE company_id = 'gone'`,
	)
}

func textOf(t testing.TB, value any, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// opportunity is the JSON of one of a company of the tier free.
func opportunity(user, recommended, score, calls, points string, days int, increase string) string {
	return fmt.Sprintf(`{"user_id":"%s","current_tier":"free","recommended_tier":"%s","opportunity_score":%s,"current_usage":{"avg_daily_calls":%s,"avg_daily_data":%s,"active_days":%d},"potential_revenue_increase":%s,"currency":"USD"}`,
		user, recommended, score, calls, points, days, increase)
}

func TestUpsell_FromTheStores(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t)
	at := MonthOf(time.Now()).Start().AddDate(0, 0, 14).Add(15 * time.Hour)
	today := dayOf(at)
	first := today.AddDate(0, 0, -UpsellDays)
	f.Plant(t,
		analyticstest.Use{Company: "acme", User: "heavy", Tier: "free", From: first.Add(time.Hour), Days: 3, Calls: 900, Points: 10},
		analyticstest.Use{Company: "acme", User: "light", Tier: "free", From: first, Days: 2, Calls: 800, Points: 1},
		analyticstest.Use{Company: "acme", User: "suspended", Tier: "free", From: first, Calls: 1000},
		analyticstest.Use{Company: "acme", User: "left", Tier: "free", From: first, Calls: 1000},      // is in no directory
		analyticstest.Use{Company: "acme", User: "g-1", Tier: "free", From: first, Calls: 1000},       // belongs to another company
		analyticstest.Use{Company: "grand", User: "e-1", Tier: "enterprise", From: first, Calls: 900}, // without limit
		analyticstest.Use{Company: "shut", User: "s-1", Tier: "free", From: first, Calls: 900},
		// The first and the last moment count; those beside them, which would lower the average, don't. Nor does today.
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: first.Add(-time.Millisecond), Calls: 1},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: first, Calls: 810},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: today.Add(-811 * time.Millisecond), Calls: 811},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: today, Calls: 2000},
		// A day is one, however many tiers the user had in it. 400 + 402 calls are 802.
		analyticstest.Use{Company: "acme", User: "two-tiers", Tier: "pro", From: first, Calls: 400, Points: 2},
		analyticstest.Use{Company: "acme", User: "two-tiers", Tier: "free", From: first.Add(time.Hour), Calls: 402, Points: 2},
		// A day whose calls are all voided is not active; of another one a part is voided. 801 calls on one day are left.
		analyticstest.Use{Company: "acme", User: "voided", Tier: "free", From: first, Calls: 10, Points: 5},
		analyticstest.Use{Company: "acme", User: "voided", Tier: "free", From: first, Calls: 10, Points: 5, Voided: true},
		analyticstest.Use{Company: "acme", User: "voided", Tier: "free", From: first.AddDate(0, 0, 1), Calls: 900, Points: 5},
		analyticstest.Use{Company: "acme", User: "voided", Tier: "free", From: first.AddDate(0, 0, 1), Calls: 99, Points: 5, Voided: true},
		// Voids whose usage is gone leave a day below 0, which is not active either.
		analyticstest.Use{Company: "acme", User: "voided", Tier: "free", From: first.AddDate(0, 0, 2), Calls: 5, Points: 5, Voided: true},
	)
	ask := func(company string) string {
		t.Helper()
		found, err := f.Upsell(t.Context(), company, at)
		return textOf(t, found, err)
	}
	heavy := opportunity("heavy", "pro", "69.00", "900.00", "9000.00", 3, "49.00")
	edge := opportunity("edge", "pro", "64.42", "810.50", "0.00", 2, "49.00")
	tiers := opportunity("two-tiers", "pro", "63.08", "802.00", "1604.00", 1, "49.00")
	voided := opportunity("voided", "pro", "63.04", "801.00", "4005.00", 1, "49.00")
	if got, want := ask("acme"), "["+strings.Join([]string{heavy, edge, tiers, voided}, ",")+"]"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, company := range []string{"grand", "shut", "idle"} {
		if got := ask(company); got != "[]" {
			t.Errorf("%s: %s, want none", company, got)
		}
	}
	for _, company := range []string{"stranger", "gone", "bare", "ACME"} {
		if found, err := f.Upsell(t.Context(), company, at); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("%s: %+v, %v, want an unknown company", company, found, err)
		}
	}
	// The limit that holds is what counts.
	f.exec(t, "INSERT INTO limit_overrides (company_id, limit_name, value, reason) VALUES ('acme', 'daily_api_calls', '1100', 'test'), ('grand', 'daily_api_calls', '100', 'test')")
	if got, want := ask("acme"), "["+heavy+"]"; got != want {
		t.Errorf("with a limit of its own: got\n%s\nwant\n%s", got, want)
	}
	if got := ask("grand"); got != "[]" {
		t.Errorf("enterprise with a limit of its own: %s, want none, as there is nothing to offer", got)
	}
	// The company paid less for its tier than the catalogue asks now.
	f.exec(t, "UPDATE subscriptions SET tier = 'pro', price_minor = 1234, limits = jsonb_set((SELECT limits FROM subscription_tiers WHERE tier = 'pro'), '{daily_api_calls}', '500') WHERE company_id = 'acme'",
		"DELETE FROM limit_overrides")
	found, err := f.Upsell(t.Context(), "acme", at)
	if err != nil || len(found) != 5 || found[0].CurrentTier != "pro" || found[0].RecommendedTier != "enterprise" || found[0].RevenueIncrease != 49_900-1234 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestChurnRisk_FromTheStores(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t)
	at := MonthOf(time.Now()).Start() // the first moment of a month: the one before is over
	m := func(ago int) time.Time { return at.AddDate(0, -ago, 0) }
	fall := func(company, user string, calls ...int) {
		t.Helper()
		for i, n := range calls {
			if n > 0 {
				f.Plant(t, analyticstest.Use{Company: company, User: user, Tier: "free", From: m(3 - i).Add(time.Hour), Calls: n})
			}
		}
	}
	fall("acme", "heavy", 30, 20, 10)
	fall("acme", "light", 10, 9, 0)
	fall("acme", "idler", 10, 0, 0)
	fall("acme", "two-tiers", 10, 20, 30)
	fall("acme", "suspended", 30, 20, 10)
	fall("acme", "left", 30, 20, 10)
	fall("acme", "g-1", 30, 20, 10)
	fall("grand", "e-1", 100, 90, 89)
	fall("shut", "s-1", 30, 20, 10)
	f.Plant(t,
		// Voids of the first month leave less than the second has.
		analyticstest.Use{Company: "acme", User: "voided", Tier: "free", From: m(3), Calls: 30},
		analyticstest.Use{Company: "acme", User: "voided", Tier: "free", From: m(3), Calls: 15, Voided: true},
		analyticstest.Use{Company: "acme", User: "voided", Tier: "free", From: m(2), Calls: 20},
		analyticstest.Use{Company: "acme", User: "voided", Tier: "free", From: m(1), Calls: 10},
		// At the borders: 4, 3 and 2 calls; those before and behind them would be too many.
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: m(3).Add(-9 * time.Millisecond), Calls: 9},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: m(3), Calls: 2},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "pro", From: m(2).Add(-2 * time.Millisecond), Calls: 2},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: m(2), Calls: 1},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: m(1).Add(-2 * time.Millisecond), Calls: 2},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: m(1), Calls: 1},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: m(0).Add(-time.Millisecond), Calls: 1},
		analyticstest.Use{Company: "acme", User: "edge", Tier: "free", From: m(0), Calls: 50},
	)
	ask := func(company string, at time.Time) string {
		t.Helper()
		report, err := f.ChurnRisk(t.Context(), company, at)
		return textOf(t, report, err)
	}
	risk := func(user, score string, two, previous, current int, strategy string) string {
		return fmt.Sprintf(`{"user_id":"%s","subscription_tier":"free","churn_risk_score":%s,"usage_trend":{"current_month":%d,"previous_month":%d,"two_months_ago":%d,"decline_percentage":%s},"retention_strategy":"%s"}`,
			user, score, current, previous, two, score, strategy)
	}
	// Six of its users had calls two months ago: heavy, light, idler, two-tiers, voided and edge. Three are at risk.
	want := `{"company_id":"acme","total_at_risk_users":3,"churn_risks":[` + strings.Join([]string{
		risk("light", "100.00", 10, 9, 0, "win_back_mail"), risk("heavy", "66.67", 30, 20, 10, "onboarding_mail"), risk("edge", "50.00", 4, 3, 2, "onboarding_mail"),
	}, ",") + `],"recommended_actions":["contact_high_risk_users","review_account","offer_training"],"analysis_date":"` + at.Format(time.RFC3339) + `"}`
	if got := ask("acme", at); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// The same at the month's last moment, seen from any zone.
	if got := ask("acme", at.AddDate(0, 1, 0).Add(-time.Millisecond).In(time.FixedZone("east", 14*3600))); got[:len(got)-30] != want[:len(want)-30] {
		t.Errorf("at the month's end: got\n%s\nwant\n%s", got, want)
	}
	if got := ask("grand", at); !strings.Contains(got, `"retention_strategy":"usage_review"`) || !strings.Contains(got, `"recommended_actions":["review_account","send_usage_tips"]`) {
		t.Errorf("enterprise: %s", got)
	}
	for _, company := range []string{"shut", "idle", "globex"} {
		want := `{"company_id":"` + company + `","total_at_risk_users":0,"churn_risks":[],"recommended_actions":[],"analysis_date":"` + at.Format(time.RFC3339) + `"}`
		if got := ask(company, at); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, company := range []string{"stranger", "gone", "bare"} {
		if report, err := f.ChurnRisk(t.Context(), company, at); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("%s: %+v, %v, want an unknown company", company, report, err)
		}
	}
}

// withoutClickHouse makes an Analyst of companies whose usage can't be read.
func withoutClickHouse(t testing.TB) *Analyst {
	t.Helper()
	f := setup(t)
	f.companies(t)
	options := *f.Options
	options.Addr = []string{enginetest.ClosedAddress(t)}
	usage, err := OpenUsage(&options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = usage.Close() })
	return New(f.Analyst.companies, usage, tier.Default())
}

// A ClickHouse that is away is an error that says so, and no empty answer.
func TestAnalyst_WithoutClickHouseThereIsNoAnswer(t *testing.T) {
	t.Parallel()
	a := withoutClickHouse(t)
	if found, err := a.Upsell(t.Context(), "acme", time.Now()); err == nil || !strings.Contains(err.Error(), "read the daily usage of company acme: ask ClickHouse at") {
		t.Errorf("%+v, %v", found, err)
	}
	if report, err := a.ChurnRisk(t.Context(), "acme", time.Now()); err == nil || !strings.Contains(err.Error(), "read the monthly usage of company acme: ask ClickHouse at") {
		t.Errorf("%+v, %v", report, err)
	}
	// What needs no usage is answered without.
	if found, err := a.Upsell(t.Context(), "grand", time.Now()); err != nil || len(found) != 0 {
		t.Errorf("without limit: %+v, %v", found, err)
	}
}

// A profile of the server that would cut answers has no effect.
func TestAnalyst_NoProfileCutsAnswers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.companies(t)
	at := time.Now()
	f.Plant(t, analyticstest.Use{Company: "acme", User: "heavy", Tier: "free", From: dayOf(at).AddDate(0, 0, -2), Calls: 900},
		analyticstest.Use{Company: "acme", User: "light", Tier: "free", From: dayOf(at).AddDate(0, 0, -2), Calls: 900})
	options := *f.Options
	options.Settings = chgo.Settings{"limit": 1, "max_rows_to_group_by": 1, "group_by_overflow_mode": "any"}
	usage, err := OpenUsage(&options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = usage.Close() }()
	if users, err := usage.Daily(t.Context(), "acme", dayOf(at).AddDate(0, 0, -3), dayOf(at)); err == nil || !strings.Contains(err.Error(), "TOO_MANY_ROWS") {
		t.Errorf("groups beyond the most: %+v, %v, want the error", users, err)
	}
	delete(options.Settings, "max_rows_to_group_by")
	again, err := OpenUsage(&options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if users, err := again.Daily(t.Context(), "acme", dayOf(at).AddDate(0, 0, -3), dayOf(at)); err != nil || len(users) != 2 {
		t.Errorf("at most one row: %+v, %v, want two users", users, err)
	}
	if len(options.Settings) != 2 {
		t.Error("the caller's settings were changed")
	}
}

// All queries find a company's rows by the key of the table, and don't read those of others.
func TestUsage_ReadsByTheKey(t *testing.T) {
	t.Parallel()
	f := setup(t)
	day := MonthOf(time.Now()).Start().AddDate(0, 0, 14)
	// One insert, so that they are in one part: 3,000 companies before and behind the one that is asked about.
	if err := f.Conn.Exec(t.Context(), `INSERT INTO usage_daily_store (company_id, user_id, subscription_tier, day, api_calls, data_points, revenue, last_activity)
		SELECT concat('c-', leftPad(toString(intDiv(number, 10)), 5, '0')), toString(number), 'free', toDate(?), 5, 5, 0, now64(3) FROM numbers(60000)`, day.Format(time.DateOnly)); err != nil {
		t.Fatal(err)
	}
	text := func(days int) string { return "'" + day.AddDate(0, 0, days).Format(time.DateOnly) + "'" }
	for name, query := range map[string]string{
		"daily":   strings.NewReplacer("$1", "'c-03000'", "$2", text(-1), "$3", text(1)).Replace(dailyUseSQL),
		"revenue": strings.NewReplacer("$1", "'c-03000'", "$2", text(-1), "$3", text(1)).Replace(revenueUsageSQL),
		"judged":  strings.NewReplacer("$1", "'c-03000'", "$2", text(-2), "$3", text(-1), "$4", text(0), "$5", text(1)).Replace(judgedUseSQL),
		"callers": strings.NewReplacer("$1", "'c-03000'", "$2", text(-1), "$3", text(1)).Replace(usersWithCallsSQL),
		"monthly": strings.NewReplacer("$1", "'c-03000'", "$2", text(-2), "$3", text(-1), "$4", text(0), "$5", text(1)).Replace(monthlyUseSQL),
	} {
		rows, err := f.Conn.Query(t.Context(), "EXPLAIN indexes = 1 "+query)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, query)
		}
		var plan []string
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, strings.TrimSpace(line))
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
		i := max(slices.Index(plan, "PrimaryKey"), 0)
		n := slices.IndexFunc(plan[i:], func(line string) bool { return strings.HasPrefix(line, "Granules: ") })
		var picked, all int
		if n < 0 || plan[i] != "PrimaryKey" {
			t.Errorf("%s: no key is used:\n%s", name, strings.Join(plan, "\n"))
		} else if _, err := fmt.Sscanf(plan[i+n], "Granules: %d/%d", &picked, &all); err != nil || picked > 2 || all < 6 {
			t.Errorf("%s: the key picks %d granules of %d, %v:\n%s", name, picked, all, err, strings.Join(plan, "\n"))
		}
	}
}
