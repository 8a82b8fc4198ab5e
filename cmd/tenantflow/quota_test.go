package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

// postgresWith makes Postgres with what some statements put into it.
func postgresWith(t *testing.T, statements ...string) (dsn string) {
	t.Helper()
	dsn = postgrestest.New(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return dsn
}

// quotaStores makes Postgres with the companies acme (free) and globex (enterprise), and returns where Dragonfly is.
func quotaStores(t *testing.T) (environ []string, counters *redis.Client) {
	t.Helper()
	dsn := postgresWith(t,
		"INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('globex', 'G', 'g@x'), ('none', 'N', 'n@x')",
		"INSERT INTO subscriptions (company_id, tier, status, period_start) VALUES ('acme', 'free', 'active', '2026-11-01 00:00+00'), ('globex', 'enterprise', 'past_due', '2026-11-01 00:00+00')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('qs-free', 'acme'), ('qs-enterprise', 'globex'), ('qs-none', 'none')",
		"INSERT INTO user_directory (user_id, company_id, subscription_status) VALUES ('qs-suspended', 'acme', 'suspended')",
	)
	address := enginetest.SharedRedis(t).URL()
	counters = redis.NewClient(enginetest.RedisOptions(t, address))
	t.Cleanup(func() { _ = counters.Close() })
	return []string{"TENANTFLOW_POSTGRES_DSN=" + dsn, "TENANTFLOW_DRAGONFLY_URL=" + address, "TENANTFLOW_TOPIC_PREFIX=" + t.Name() + "."}, counters
}

func TestQuotaShowTellsWhatTheStoresHold(t *testing.T) {
	t.Parallel()
	environ, counters := quotaStores(t)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	before := today.AddDate(0, 0, -1)
	count := func(user string, day time.Time, calls, points int) {
		t.Helper()
		pipe := counters.Pipeline()
		pipe.HSet(t.Context(), dragonfly.QuotaKey(user, day), "api_calls", calls, "data_points", points)
		pipe.Expire(t.Context(), dragonfly.QuotaKey(user, day), time.Hour)
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, day := range []time.Time{today, today.AddDate(0, 0, 1)} { // should midnight pass meanwhile
		count("qs-free", day, 800, 12345)
		count("qs-enterprise", day, 812345, 7)
		count("qs-suspended", day, 3, 0)
		count("qs-stranger", day, 5, 6)
	}
	count("qs-free", before, 1000, 1)

	show := func(args ...string) shownQuota {
		t.Helper()
		out := looked(t, environ, append([]string{"quota", "show", "-o", "json"}, args...)...)
		var q shownQuota
		if err := json.Unmarshal([]byte(out), &q); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return q
	}
	q := show("qs-free")
	if !q.Known || q.CompanyID != "acme" || q.Tier != "free" || *q.DailyLimit != 1000 || q.APICalls != 800 || q.DataPoints != 12345 ||
		q.Percentage != "80.00" || q.Exceeded || !slices.Equal(q.Thresholds, []int{80}) || q.Reason != "" {
		t.Errorf("a user at 80 %%: %+v", q)
	}
	if !q.Rebuilding {
		t.Error("nobody has counted under this prefix yet, and it does not say so")
	}
	q = show("qs-free", "--date", before.Format(time.DateOnly))
	if q.Date != before.Format(time.DateOnly) || !q.Exceeded || !slices.Equal(q.Thresholds, []int{80, 100}) || !q.ResetTime.Equal(today) || !q.KeptUntil.Equal(today.Add(48*time.Hour)) {
		t.Errorf("the day before: %+v", q)
	}
	q = show("qs-enterprise")
	if *q.DailyLimit != tier.Unlimited || q.APICalls != 812345 || q.Exceeded || len(q.Thresholds) != 0 || q.Percentage != "" || q.Billing != "past_due" {
		t.Errorf("an unlimited user: %+v", q)
	}
	if q = show("qs-suspended"); !q.Exceeded || q.Reason != "user_suspended" || q.Status != "suspended" {
		t.Errorf("a suspended user: %+v", q)
	}
	if q = show("qs-none"); !q.Known || q.DailyLimit != nil || q.Reason != "no_subscription" {
		t.Errorf("a user without a subscription: %+v", q)
	}
	if q = show("qs-stranger"); q.Known || q.APICalls != 5 || q.DataPoints != 6 || q.Reason != "no_subscription" {
		t.Errorf("a user nobody knows: %+v", q)
	}
	if _, errOut, code := tenantflow(t, environ, "quota", "show", "qs-nobody"); code != exitFailed || !strings.Contains(errOut, "qs-nobody is not known") {
		t.Errorf("nobody: exit code %d, %s", code, errOut)
	}

	out := looked(t, environ, "quota", "show", "qs-free")
	for _, want := range []string{"company             acme", "API calls           800", "daily limit         1000", "used                80.00 %", "thresholds reached  80 %", "rebuilding          yes"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table lacks %q:\n%s", want, out)
		}
	}
	for _, user := range []string{"qs-enterprise", "qs-stranger", "qs-none"} {
		if out, errOut, code := tenantflow(t, environ, "quota", "show", user, "--date", "2001-01-01"); user != "qs-stranger" && (code != exitDone || !strings.Contains(out, "kept only until")) {
			t.Errorf("%s: exit code %d\n%s%s", user, code, out, errOut)
		}
	}
}

func TestQuotaShowSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	nowhere := []string{"TENANTFLOW_POSTGRES_DSN=postgres://u:hunter2@127.0.0.1:1/db", "TENANTFLOW_DRAGONFLY_URL=redis://u:hunter2@127.0.0.1:1/0"}
	onlyDragonfly := []string{nowhere[0], "TENANTFLOW_DRAGONFLY_URL=" + enginetest.SharedRedis(t).URL()}
	for _, c := range []struct {
		name    string
		environ []string
		args    []string
		code    int
		says    string
	}{
		{"no user", nowhere, nil, exitInvalid, "takes one user id, but got 0"},
		{"two users", nowhere, []string{"a", "b"}, exitInvalid, "but got 2"},
		{"an id that is none", nowhere, []string{"a/b"}, exitInvalid, `"a/b" is no user id`},
		{"a line break behind an id", nowhere, []string{"a\n"}, exitInvalid, "no user id"},
		{"an empty id", nowhere, []string{""}, exitInvalid, "no user id"},
		{"a day that is none", nowhere, []string{"a", "--date", "2026-02-30"}, exitInvalid, "--date 2026-02-30"},
		{"a time for a day", nowhere, []string{"a", "--date", "2026-02-03T00:00:00Z"}, exitInvalid, "write it as"},
		{"stores without an address", nil, []string{"a"}, exitInvalid, "TENANTFLOW_POSTGRES_DSN: it is not set"},
		{"Dragonfly away", nowhere, []string{"a"}, exitFailed, "ask Dragonfly at 127.0.0.1:1"},
		{"Postgres away", onlyDragonfly, []string{"a"}, exitFailed, "127.0.0.1:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, errOut, code := tenantflow(t, c.environ, append([]string{"quota", "show"}, c.args...)...)
			if code != c.code || !strings.Contains(errOut, c.says) || out != "" {
				t.Errorf("exit code %d, want %d; it should say %q\n%s%s", code, c.code, c.says, out, errOut)
			}
			if strings.Contains(errOut, "hunter2") {
				t.Errorf("it shows the password: %s", errOut)
			}
		})
	}
}

// The thresholds shown are those of the user's tier in the configured catalogue.
func TestQuotaShow_NamesThresholdsOfTheTiersFile(t *testing.T) {
	t.Parallel()
	environ, counters := quotaStores(t)
	path := filepath.Join(t.TempDir(), "tiers.json")
	if err := os.WriteFile(path, []byte(`{"tiers": [{"name": "free", "price_minor": 0, "daily_api_calls": 5, "thresholds": [90, 150, 50], "storage_mb": 1, "max_users": 1,
		"retention_days": 1, "features_enabled": [], "support_level": "none", "backup": {"every": "weekly", "keep": 1}, "statement_timeout": "1s", "p95_target": "1s"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		calls int
		want  []int
	}{{0, []int{}}, {499, []int{}}, {500, []int{50}}, {1499, []int{50, 90}}, {1500, []int{50, 90, 150}}} { // the limit is the subscription's: 1000
		if err := counters.HSet(t.Context(), dragonfly.QuotaKey("qs-free", day), "api_calls", c.calls, "data_points", 1).Err(); err != nil {
			t.Fatal(err)
		}
		var q shownQuota
		out := looked(t, append(environ, "TENANTFLOW_TIERS_FILE="+path), "quota", "show", "qs-free", "--date", "2026-11-22", "-o", "json")
		if err := json.Unmarshal([]byte(out), &q); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(q.Thresholds, c.want) {
			t.Errorf("%d calls of 1000: thresholds %v, want %v", c.calls, q.Thresholds, c.want)
		}
	}
	if err := counters.Del(t.Context(), dragonfly.QuotaKey("qs-free", day)).Err(); err != nil {
		t.Fatal(err)
	}
}
