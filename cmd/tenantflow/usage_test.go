package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
)

func TestUsageVoid_SaysWhatIsWrongWithItsFlags(t *testing.T) {
	t.Parallel()
	good := []string{"--company", "acme", "--user", "u-1", "--source", "/gateway", "--id", "e-1", "--timestamp", "2026-11-22T10:00:00Z", "--reason", "wrong"}
	for _, c := range []struct {
		flag, value string
		code        int
		says        string
	}{
		{"--company", "", exitInvalid, "--company is missing"},
		{"--company", "a b", exitInvalid, "invalid_data"},
		{"--user", "", exitInvalid, "--user is missing"},
		{"--reason", "", exitInvalid, "--reason is missing"},
		{"--timestamp", "yesterday", exitInvalid, "it is no time"},
		{"--id", "a\nb", exitInvalid, "invalid_data"},
		{"--wait", "-1s", exitInvalid, "negative"},
		{"", "", exitFailed, "reach topic company.events"},
	} {
		args := append([]string{"usage", "void"}, good...)
		if c.flag != "" {
			args = append(args, c.flag, c.value)
		}
		if out, errOut, code := tenantflow(t, deadStores(), args...); code != c.code || !strings.Contains(errOut, c.says) || out != "" {
			t.Errorf("%s %q: exit code %d, %q, want %d and %q", c.flag, c.value, code, errOut, c.code, c.says)
		}
	}
}

// The whole service: usage is taken back on the command line, and a second time it is refused.
func TestUsageVoid_IsAnsweredByTheService(t *testing.T) {
	t.Parallel()
	prefix := enginetest.NewTopic(t, 1) + "." // only for its name, which no other test has
	environ := []string{
		"TENANTFLOW_KAFKA_BROKERS=" + enginetest.SharedKafka(t).Addr(),
		"TENANTFLOW_CLICKHOUSE_DSN=" + enginetest.NewDatabase(t),
		"TENANTFLOW_POSTGRES_DSN=" + enginetest.NewPostgresDatabase(t),
		"TENANTFLOW_DRAGONFLY_URL=" + enginetest.Redis(t).URL(),
		"TENANTFLOW_TOPIC_PREFIX=" + prefix,
		"TENANTFLOW_GROUP_PREFIX=" + prefix + "group",
		"TENANTFLOW_TOPIC_PARTITIONS=2",
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0",
		"TENANTFLOW_USAGE_BATCH_INTERVAL=50ms",
	}
	if _, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(errOut)
	}
	company := fmt.Sprintf("void%d", time.Now().UnixNano())
	used := time.Now().Add(-time.Minute).UTC().Format("2006-01-02T15:04:05.000Z")
	produce := func(topic, event string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "event.jsonl")
		if err := os.WriteFile(file, []byte(event+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errOut, code := tenantflow(t, environ, "produce", "--topic", topic, "--file", file); code != exitDone {
			t.Fatal(errOut)
		}
	}
	produce("company.events", fmt.Sprintf(`{"specversion":"1.0","id":"reg","source":"/hub","type":"company.registered.v1","time":%q,"partitionkey":%q,"data":{"company_id":%[2]q,"name":"N","billing_email":"b@a.example","initial_user":{"user_id":"%[2]s-u","email":"u@a.example"}}}`, used, company))
	produce("usage.events", fmt.Sprintf(`{"specversion":"1.0","id":"e-1","source":"/gateway","type":"usage.recorded.v1","time":%q,"partitionkey":%q,"data":{"company_id":%[2]q,"user_id":"%[2]s-u","subscription_tier":"free","service_name":"s","api_endpoint":"/e","data_points_consumed":5,"processing_time_ms":1.5}}`, used, company))
	p := start(t, "tenantflow", environ, "run")
	void := func(id string, more ...string) (r voidResult, code int) {
		t.Helper()
		args := append([]string{"usage", "void", "-o", "json", "--company", company, "--user", company + "-u", "--source", "/gateway", "--id", id, "--timestamp", used,
			"--reason", "a test"}, more...)
		out, errOut, code := tenantflow(t, environ, args...)
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%s: %q, %s", id, out, errOut)
		}
		return r, code
	}
	patience := "--wait=" + enginetest.Patience.String()
	if r, code := void("e-1", patience); code != exitDone || r.State != "voided" || r.CompanyID != company {
		t.Errorf("%d %+v", code, r)
	}
	if r, code := void("e-1", patience); code != exitFailed || r.State != "rejected" || r.Code != "already_voided" {
		t.Errorf("a second time: %d %+v", code, r)
	}
	if r, code := void("e-2", patience, "--request-id", "mine"); code != exitFailed || r.Code != "unknown_usage" || r.RequestID != "mine" {
		t.Errorf("of none: %d %+v", code, r)
	}
	if r, code := void("e-3"); code != exitDone || r.State != "requested" {
		t.Errorf("without waiting: %d %+v", code, r)
	}
	if _, body := get(t, p.url+"/metrics"); !strings.Contains(body, `tenantflow_void_requests_decided_total{code="voided"} 1`) {
		t.Error("the metric is missing")
	}
}
