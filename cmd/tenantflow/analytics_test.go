package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/engine/enginetest"
)

// businessStores makes Postgres with the companies acme (free) and idle (pro), and a ClickHouse.
func businessStores(t *testing.T) (environ []string, world *analyticstest.World) {
	t.Helper()
	dsn := postgresWith(t,
		"INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('idle', 'I', 'i@x')",
		"INSERT INTO subscriptions (company_id, tier, period_start) VALUES ('acme', 'free', '2026-11-01 00:00+00'), ('idle', 'pro', '2026-11-01 00:00+00')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u-1', 'acme'), ('u-2', 'acme')",
	)
	world = analyticstest.New(t)
	return []string{"TENANTFLOW_POSTGRES_DSN=" + dsn, "TENANTFLOW_CLICKHOUSE_DSN=" + world.DSN}, world
}

func TestAnalytics_CommandsShowWhatTheStoresHold(t *testing.T) {
	t.Parallel()
	environ, world := businessStores(t)
	now := time.Now().UTC()
	today := now.Truncate(24 * time.Hour)
	month := func(ago int) time.Time { // the 15th, which stays in its month should that end meanwhile
		return time.Date(now.Year(), now.Month()-time.Month(ago), 15, 0, 0, 0, 0, time.UTC)
	}
	world.Plant(t,
		analyticstest.Use{Company: "acme", User: "u-1", Tier: "free", From: today.AddDate(0, 0, -2), Calls: 900, Points: 3},
		analyticstest.Use{Company: "acme", User: "u-2", Tier: "free", From: month(3), Calls: 40},
		analyticstest.Use{Company: "acme", User: "u-2", Tier: "free", From: month(2), Calls: 30},
		analyticstest.Use{Company: "acme", User: "u-2", Tier: "free", From: month(1), Calls: 10})

	const upsell = `[{"user_id":"u-1","current_tier":"free","recommended_tier":"pro","opportunity_score":67.00,"current_usage":{"avg_daily_calls":900.00,"avg_daily_data":2700.00,"active_days":1},"potential_revenue_increase":49.00,"currency":"USD"}]`
	if got := compacted(t, looked(t, environ, "analytics", "upsell", "--company", "acme", "-o", "json")); got != upsell {
		t.Errorf("got  %s\nwant %s", got, upsell)
	}
	const churn = `"churn_risks":[{"user_id":"u-2","subscription_tier":"free","churn_risk_score":75.00,"usage_trend":{"current_month":10,"previous_month":30,"two_months_ago":40,"decline_percentage":75.00},"retention_strategy":"win_back_mail"}],` +
		`"recommended_actions":["contact_high_risk_users","review_account"]`
	if got := compacted(t, looked(t, environ, "analytics", "churn", "--company", "acme", "-o", "json")); !strings.Contains(got, churn) {
		t.Errorf("got  %s\nwant %s", got, churn)
	}
	for command, want := range map[string][]string{
		"upsell": {"USER  TIER  RECOMMENDED  SCORE  CALLS A DAY  DATA A DAY  ACTIVE DAYS  MORE A MONTH", "u-1   free  pro          67.00  900.00       2700.00     1            49.00 USD", "users who need a larger tier: 1"},
		"churn":  {"USER  TIER  RISK   TWO MONTHS AGO  MONTH BEFORE  LAST MONTH  DECLINE  STRATEGY", "u-2   free  75.00  40              30            10          75.00 %  win back mail", "users at risk: 1", "recommended actions: contact high risk users, review account"},
	} {
		out := looked(t, environ, "analytics", command, "--company", "acme")
		for _, line := range want {
			if !strings.Contains(out, line+"\n") {
				t.Errorf("%s lacks %q:\n%s", command, line, out)
			}
		}
		if out := looked(t, environ, "analytics", command, "--company", "idle"); !strings.Contains(out, ": 0\n") {
			t.Errorf("%s of a company without use:\n%s", command, out)
		}
	}
}

func compacted(t *testing.T, text string) string {
	t.Helper()
	var raw json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	short, err := json.Marshal(raw) // which is written without white space
	if err != nil {
		t.Fatal(err)
	}
	return string(short)
}

func TestAnalytics_CommandsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	environ, _ := businessStores(t)
	for _, c := range []struct {
		name    string
		environ []string
		args    []string
		code    int
		says    string
	}{
		{"no company", environ, nil, exitInvalid, "--company is missing"},
		{"no id of a company", environ, []string{"--company", "a b"}, exitInvalid, `--company "a b": a company id has`},
		{"an argument", environ, []string{"acme"}, exitInvalid, "takes no arguments"},
		{"an unknown company", environ, []string{"--company", "stranger"}, exitFailed, "company stranger is not known, or has no subscription"},
		{"no address of ClickHouse", environ[:1], []string{"--company", "acme"}, exitInvalid, "TENANTFLOW_CLICKHOUSE_DSN: it is not set"},
		{"ClickHouse is away", []string{environ[0], deadStores()[1]}, []string{"--company", "acme"}, exitFailed, "ask ClickHouse at"},
	} {
		for _, command := range []string{"upsell", "churn"} {
			out, errOut, code := tenantflow(t, c.environ, append([]string{"analytics", command}, c.args...)...)
			if code != c.code || !strings.Contains(errOut, c.says) || out != "" {
				t.Errorf("%s, %s: exit code %d, want %d, and %q in %q", command, c.name, code, c.code, c.says, errOut)
			}
		}
	}
}

// The part api answers analyses where the process has an address of ClickHouse, and says what is missing where it has none.
func TestAnalytics_TheServiceAnswersFromItsClickHouse(t *testing.T) {
	t.Parallel()
	environ, world := businessStores(t)
	world.Plant(t, analyticstest.Use{Company: "acme", User: "u-1", Tier: "free", From: time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -2), Calls: 900})
	environ = append(environ, "TENANTFLOW_DRAGONFLY_URL="+enginetest.SharedRedis(t).URL(), "TENANTFLOW_TOPIC_PREFIX="+t.Name()+".", "TENANTFLOW_HTTP_ADDR=127.0.0.1:0")
	for _, c := range []struct {
		name    string
		environ []string
		status  int
		says    string
	}{
		{"with ClickHouse", environ, http.StatusOK, `"recommended_tier":"pro"`},
		{"without", slices.Delete(slices.Clone(environ), 1, 2), http.StatusServiceUnavailable, "TENANTFLOW_CLICKHOUSE_DSN is not set"},
	} {
		p := start(t, "tenantflow", c.environ, "run", "--only", "api")
		eventually(t, func() bool {
			status, body := get(t, p.url+"/v1/companies/acme/upsell")
			return status == c.status && strings.Contains(body, c.says)
		})
		p.signal(t, syscall.SIGTERM)
		if log, code := p.wait(t); code != exitDone {
			t.Errorf("%s: exit code %d\n%s", c.name, code, log)
		}
	}
}
