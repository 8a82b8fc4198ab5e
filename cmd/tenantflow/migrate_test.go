package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/migrations"
)

// ownStores gives the environment of an installation of the test's own, with nothing in it yet. Its topics begin with
// the name of the test, and the databases are called by it.
func ownStores(t *testing.T) []string {
	t.Helper()
	postgres, err := url.Parse(enginetest.SharedPostgres(t).DSN())
	if err != nil {
		t.Fatal(err)
	}
	postgres.Path = "/" + t.Name()
	return []string{
		"TENANTFLOW_KAFKA_BROKERS=" + enginetest.SharedKafka(t).Addr(),
		"TENANTFLOW_CLICKHOUSE_DSN=" + enginetest.SharedClickHouse(t).DSNOf(t.Name()),
		"TENANTFLOW_TOPIC_PREFIX=" + t.Name() + ".",
		"TENANTFLOW_TOPIC_PARTITIONS=2",
		"TENANTFLOW_POSTGRES_DSN=" + postgres.String(),
	}
}

func TestMigrateCreatesEverythingOnceAndStatusSaysSo(t *testing.T) {
	t.Parallel()
	environ := ownStores(t)
	versions, err := migrations.PostgresVersions()
	if err != nil {
		t.Fatal(err)
	}
	tables := len(versions)
	clickHouse, err := migrations.ClickHouseVersions()
	if err != nil {
		t.Fatal(err)
	}
	rows := len(clickHouse)
	states := func(args ...string) (map[string]int, int) {
		t.Helper()
		out, errOut, code := tenantflow(t, environ, append([]string{"migrate", "-o", "json"}, args...)...)
		var result migrated
		if err := json.Unmarshal([]byte(out), &result); err != nil {
			t.Fatalf("%v: %v\n%s%s", args, err, out, errOut)
		}
		if result.ClickHouse.Database != t.Name() {
			t.Errorf("database %q", result.ClickHouse.Database)
		}
		if result.Postgres.Database != t.Name() {
			t.Errorf("Postgres database %q", result.Postgres.Database)
		}
		counts := map[string]int{}
		for _, v := range result.Postgres.Versions {
			counts["table "+v.State]++
		}
		for _, v := range result.Postgres.Tiers {
			counts["tier "+v.State]++
		}
		for _, v := range result.ClickHouse.Versions {
			counts["version "+v.State]++
		}
		for _, r := range result.Topics {
			counts["topic "+string(r.State)]++
			if !strings.HasPrefix(r.Topic, t.Name()+".") {
				t.Errorf("topic %s has no prefix", r.Topic)
			}
		}
		return counts, code
	}
	for _, step := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"--status"}, fmt.Sprintf("map[table pending:%d tier pending:3 topic missing:15 version pending:%d]", tables, rows), exitFailed},
		{nil, fmt.Sprintf("map[table created:%d tier written:3 topic created:15 version created:%d]", tables, rows), exitDone},
		{nil, fmt.Sprintf("map[table applied:%d tier applied:3 topic exists:15 version applied:%d]", tables, rows), exitDone},
		{[]string{"--status"}, fmt.Sprintf("map[table applied:%d tier applied:3 topic exists:15 version applied:%d]", tables, rows), exitDone},
	} {
		got, code := states(step.args...)
		if fmt.Sprint(got) != step.want || code != step.code {
			t.Errorf("migrate %v: %v and exit code %d, want %s and %d", step.args, got, code, step.want, step.code)
		}
	}
	other := filepath.Join(t.TempDir(), "tiers.json")
	catalogue := `{"tiers": [{"name": "free", "price_minor": 0, "daily_api_calls": 7, "storage_mb": 1, "max_users": 1, "retention_days": 1,
		"features_enabled": ["x"], "benefits": {}, "support_level": "none", "backup": {"every": "weekly", "keep": 1},
		"statement_timeout": "5s", "p95_target": "1s"}]}`
	if err := os.WriteFile(other, []byte(catalogue), 0o600); err != nil {
		t.Fatal(err)
	}
	before := environ
	environ = append(slices.Clone(environ), "TENANTFLOW_TIERS_FILE="+other)
	for _, step := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"--status"}, fmt.Sprintf("map[table applied:%d tier pending:3 topic exists:15 version applied:%d]", tables, rows), exitFailed},
		{nil, fmt.Sprintf("map[table applied:%d tier removed:2 tier written:1 topic exists:15 version applied:%d]", tables, rows), exitDone},
		{[]string{"--status"}, fmt.Sprintf("map[table applied:%d tier applied:1 topic exists:15 version applied:%d]", tables, rows), exitDone},
	} {
		got, code := states(step.args...)
		if fmt.Sprint(got) != step.want || code != step.code {
			t.Errorf("with another catalogue, migrate %v: %v and exit code %d, want %s and %d", step.args, got, code, step.want, step.code)
		}
	}
	if err := os.WriteFile(other, []byte(`{"tiers": [{"name": "gold", "prize": 1}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := tenantflow(t, environ, "migrate"); code != exitInvalid || !strings.Contains(errOut, "TENANTFLOW_TIERS_FILE") || !strings.Contains(errOut, "prize") {
		t.Errorf("with a catalogue that is none (exit code %d):\n%s", code, errOut)
	}
	environ = before
	if _, _, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Errorf("back to the built-in catalogue: exit code %d", code)
	}
	out, _, code := tenantflow(t, environ, "migrate", "--status")
	if code != exitDone || !regexp.MustCompile(`tier enterprise +applied`).MatchString(out) ||
		!regexp.MustCompile(`00004_subscriptions.sql +applied +database `+t.Name()+`, 20`).MatchString(out) {
		t.Errorf("as a table (exit code %d):\n%s", code, out)
	}
	if code != exitDone || !regexp.MustCompile(`00001_usage_tracking.sql +applied +database `+t.Name()+`, 20`).MatchString(out) {
		t.Errorf("as a table (exit code %d):\n%s", code, out)
	}
}

func TestMigrateWaitsForStoresNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	environ := []string{"TENANTFLOW_KAFKA_BROKERS=127.0.0.1:1", "TENANTFLOW_CLICKHOUSE_DSN=http://default:secret@127.0.0.1:2/tenantflow",
		"TENANTFLOW_POSTGRES_DSN=postgres://tenantflow:secret@127.0.0.1:3/tenantflow"}
	start := time.Now()
	_, errOut, code := tenantflow(t, environ, "migrate", "--wait", "1s")
	if took := time.Since(start); code != exitFailed || took < time.Second || took > enginetest.Patience {
		t.Errorf("exit code %d after %s", code, took)
	}
	for _, address := range []string{"ClickHouse at 127.0.0.1:2", "Kafka at 127.0.0.1:1", "Postgres at 127.0.0.1:3"} {
		if !strings.Contains(errOut, "reach "+address) {
			t.Errorf("nothing about %s:\n%s", address, errOut)
		}
	}
	if strings.Contains(errOut, "secret") {
		t.Errorf("the password is shown:\n%s", errOut)
	}
}
