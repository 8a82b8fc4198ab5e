package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/analytics"
	"tenantflow/internal/analytics/analyticstest"
)

func TestAnalytics_RevenueShowsWhatWasCharged(t *testing.T) {
	t.Parallel()
	for !revenueIsShown(t) { // the month has ended meanwhile
	}
}

// revenueIsShown looks at the revenue of a company that was charged up to the present month; false: another one has begun.
func revenueIsShown(t *testing.T) bool {
	t.Helper()
	environ, world := businessStores(t)
	conn, err := pgx.Connect(t.Context(), strings.TrimPrefix(environ[0], "TENANTFLOW_POSTGRES_DSN="))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	present := analytics.MonthOf(time.Now())
	for ago := range 6 {
		start := (present - analytics.Month(ago)).Start()
		if _, err := conn.Exec(t.Context(), `INSERT INTO billing_transactions (transaction_id, company_id, transaction_type, new_tier, amount_minor, currency, lines, period_start, created_at)
			VALUES ($1, 'acme', 'renewal', 'pro', 4900, 'USD', '[]', $2, $2)`, fmt.Sprint("t-", ago), start); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(t.Context(), "UPDATE subscriptions SET price_minor = 4900 WHERE company_id = 'acme'"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `INSERT INTO subscription_events (company_id, event, event_time, data) VALUES ('acme', 'subscription.upgraded', $1, '{"to": "pro", "price_minor": 4900}')`,
		(present - 1).Start()); err != nil {
		t.Fatal(err)
	}
	world.Plant(t, analyticstest.Use{Company: "acme", User: "u-1", Tier: "pro", From: (present - 1).Start(), Calls: 3},
		analyticstest.Use{Company: "acme", User: "u-1", Tier: "free", From: (present - 1).Start(), Calls: 2})
	out := looked(t, environ, "analytics", "revenue", "--company", "acme", "--months", "2")
	if now := analytics.MonthOf(time.Now()); now != present {
		return false
	}
	for _, line := range []string{
		"MONTH               TIER  CHARGED  ATTRIBUTED  ACTIVE USERS  CALLS  RECURRING",
		(present - 1).String() + "             free  0.00     0.500000    1             2      49.00",
		"                    pro   49.00    0.750000    1             3      ",
		present.String() + " (not over)  pro   49.00    0.000000    0             0      49.00",
		"98.00 USD charged in 2 months, 49.00 a month on average; trend none a month, growth 0.00 %",
		"pro: 98.00 USD in 2 months, 100.00 % of the total",
		"recurring in " + (present - 1).String() + ": 0.00 + 49.00 new + 0.00 expansion + 0.00 reactivated - 0.00 contraction - 0.00 churned = 49.00",
		"forecast for " + present.String() + ": 49.00 (80 %: 49.00 to 49.00)",
	} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("it lacks %q:\n%s", line, out)
		}
	}
	if got := compacted(t, looked(t, environ, "analytics", "revenue", "--company", "acme", "--months", "2", "-o", "json")); !strings.Contains(got, `"period_months":2,"total_revenue":98.00,"avg_monthly_revenue":49.00,"attributed_revenue":1.250000`) {
		t.Errorf("JSON: %s", got)
	}
	if out := looked(t, environ, "analytics", "revenue", "--company", "idle"); !strings.Contains(out, "no forecast: whole months since the first charge: 0; a forecast needs 4") || strings.Count(out, " -     0.00") != analytics.DefaultMonths {
		t.Errorf("of a company without charges:\n%s", out)
	}
	return true
}

func TestAnalytics_RevenueSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	environ, _ := businessStores(t)
	for says, args := range map[string][]string{
		"--company is missing": nil, "--months 0: it is from 1 to 36": {"--company", "acme", "--months", "0"}, "--months 37: it is from 1 to 36": {"--company", "acme", "--months", "37"},
		"company stranger is not known": {"--company", "stranger"},
	} {
		want := exitInvalid
		if strings.Contains(says, "known") {
			want = exitFailed
		}
		out, errOut, code := tenantflow(t, environ, append([]string{"analytics", "revenue"}, args...)...)
		if code != want || !strings.Contains(errOut, says) || out != "" {
			t.Errorf("%v: exit code %d, want %d, and %q in %q", args, code, want, says, errOut)
		}
	}
}
