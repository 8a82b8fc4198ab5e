package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
)

// ownStores gives the environment of an installation of the test's own, with nothing in it yet. Its topics begin with
// the name of the test, and so does the database.
func ownStores(t *testing.T) []string {
	t.Helper()
	return []string{
		"TENANTFLOW_KAFKA_BROKERS=" + enginetest.SharedKafka(t).Addr(),
		"TENANTFLOW_CLICKHOUSE_DSN=" + enginetest.SharedClickHouse(t).DSNOf(t.Name()),
		"TENANTFLOW_TOPIC_PREFIX=" + t.Name() + ".",
		"TENANTFLOW_TOPIC_PARTITIONS=2",
	}
}

func TestMigrateCreatesEverythingOnceAndStatusSaysSo(t *testing.T) {
	t.Parallel()
	environ := ownStores(t)
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
		counts := map[string]int{}
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
		{[]string{"--status"}, "map[topic missing:14 version pending:4]", exitFailed},
		{nil, "map[topic created:14 version created:4]", exitDone},
		{nil, "map[topic exists:14 version applied:4]", exitDone},
		{[]string{"--status"}, "map[topic exists:14 version applied:4]", exitDone},
	} {
		got, code := states(step.args...)
		if fmt.Sprint(got) != step.want || code != step.code {
			t.Errorf("migrate %v: %v and exit code %d, want %s and %d", step.args, got, code, step.want, step.code)
		}
	}
	out, _, code := tenantflow(t, environ, "migrate", "--status")
	if code != exitDone || !regexp.MustCompile(`00001_usage_tracking.sql +applied +database `+t.Name()+`, 20`).MatchString(out) {
		t.Errorf("as a table (exit code %d):\n%s", code, out)
	}
}

func TestMigrateWaitsForStoresNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	environ := []string{"TENANTFLOW_KAFKA_BROKERS=127.0.0.1:1", "TENANTFLOW_CLICKHOUSE_DSN=http://default:secret@127.0.0.1:2/tenantflow"}
	start := time.Now()
	_, errOut, code := tenantflow(t, environ, "migrate", "--wait", "1s")
	if took := time.Since(start); code != exitFailed || took < time.Second || took > 20*time.Second {
		t.Errorf("exit code %d after %s", code, took)
	}
	for _, address := range []string{"ClickHouse at 127.0.0.1:2", "Kafka at 127.0.0.1:1"} {
		if !strings.Contains(errOut, "reach "+address) {
			t.Errorf("nothing about %s:\n%s", address, errOut)
		}
	}
	if strings.Contains(errOut, "secret") {
		t.Errorf("the password is shown:\n%s", errOut)
	}
}
