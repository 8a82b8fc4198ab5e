package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/verify"
	"tenantflow/migrations"
)

func TestVerifyTellsDifferencesByItsExitCodeAndRepairsThem(t *testing.T) {
	t.Parallel()
	prefix := enginetest.NewTopic(t, 1) + "." // only for its name, which no other test has
	environ := []string{
		"TENANTFLOW_KAFKA_BROKERS=" + enginetest.SharedKafka(t).Addr(),
		"TENANTFLOW_CLICKHOUSE_DSN=" + enginetest.NewDatabase(t),
		"TENANTFLOW_POSTGRES_DSN=" + enginetest.NewPostgresDatabase(t),
		"TENANTFLOW_TOPIC_PREFIX=" + prefix,
		"TENANTFLOW_GROUP_PREFIX=" + prefix + "group",
		"TENANTFLOW_USAGE_INSERT_TIMEOUT=1s",
	}
	run := func(code int, args ...string) (out, errOut string) {
		t.Helper()
		out, errOut, got := tenantflow(t, environ, args...)
		if got != code {
			t.Fatalf("%s: exit code %d, want %d\n%s\n%s", strings.Join(args, " "), got, code, out, errOut)
		}
		return out, errOut
	}
	if _, errOut := run(exitInvalid, "verify"); !strings.Contains(errOut, "migrate") {
		t.Errorf("before migrate it says: %s", errOut)
	}
	run(exitDone, "migrate")
	if out, _ := run(exitDone, "verify"); !strings.Contains(out, "passed: 0 offsets") {
		t.Errorf("an empty installation: %s", out)
	}

	cfg, err := config.Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	options, err := cfg.ClickHouseOptions()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := migrations.OpenClickHouse(t.Context(), options, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tables.Close() })
	const tamper = "INSERT INTO usage_daily_store VALUES ('acme', 'u', 'pro', today(), 1, 2, '3', now64(3))"
	if _, err := tables.DB().ExecContext(t.Context(), tamper); err != nil {
		t.Fatal(err)
	}
	out, errOut := run(exitFailed, "verify")
	if !strings.Contains(out, "usage_daily acme|u|pro|") || !strings.Contains(out, "api_calls is 1, the rows make 0") || !strings.Contains(errOut, "1 differences") {
		t.Errorf("a wrong total:\n%s\n%s", out, errOut)
	}
	if out, _ = run(exitFailed, "verify", "--repair", "--dry-run"); !strings.Contains(out, "a repair would correct 1 totals") || strings.Contains(out, "repaired:") {
		t.Errorf("a dry run: %s", out)
	}
	if _, errOut = run(exitInvalid, "verify", "--dry-run"); !strings.Contains(errOut, "--repair") {
		t.Errorf("got %s", errOut)
	}
	if _, errOut = run(exitInvalid, "verify", "--since", "yesterday"); !strings.Contains(errOut, "neither a time") {
		t.Errorf("got %s", errOut)
	}
	if out, _ = run(exitDone, "verify", "--since", "1m"); !strings.Contains(out, "only what came since") {
		t.Errorf("a cheap run: %s", out)
	}
	out, errOut = run(exitDone, "verify", "--repair", "-o", "json")
	if !strings.Contains(errOut, "the repair is about to") || !strings.Contains(errOut, "usage_daily acme|u|pro|") {
		t.Errorf("before the repair it says: %s", errOut)
	}
	var report verify.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.Repairs.TotalsMended != 1 || report.Differences() != 0 || len(report.Partitions) != 8 {
		t.Errorf("%v: %s", err, out)
	}
	if out, _ = run(exitDone, "verify"); !strings.Contains(out, "passed") {
		t.Errorf("after the repair: %s", out)
	}
	if _, errOut = run(exitInvalid, "verify", "--lower"); !strings.Contains(errOut, "--repair") {
		t.Errorf("got %s", errOut)
	}

	// A total of which nothing can be said, because the group's metadata says that its insert is not settled.
	topic, group := cfg.TopicPrefix+events.TopicUsage, cfg.GroupPrefix+".usage"
	for _, statement := range []string{`INSERT INTO usage_tracking (event_id, event_source, user_id, company_id, timestamp, subscription_tier, service_name, api_endpoint, data_points_consumed,
		processing_time_ms, billing_period, revenue_attributed, _topic, _partition, _offset, _insert_by) VALUES ('id', '/s', 'u', 'acme', now64(3), 'pro', 's', '/', 1, 1, '2026-10', 1, '` + topic + `', 0, 0, now64(3) + INTERVAL 5 SECOND)`,
		"TRUNCATE TABLE billing_monthly_store"} {
		if _, err := tables.DB().ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	client := enginetest.KafkaClient(t, cfg.KafkaBrokers[0])
	if _, err := client.Produce(t.Context(), &kafka.ProduceRequest{Topic: topic, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte("the event of that row"))})}); err != nil {
		t.Fatal(err)
	}
	kafkatest.CommitOutside(t, client, group, topic, map[int]int64{0: 0}, "tf1 1 1 0 202610:0000000000000001")
	out, errOut = run(exitFailed, "verify")
	if !strings.Contains(out, "NOT PROVEN") || !strings.Contains(errOut, "1 totals could not be judged") {
		t.Errorf("a total that can't be judged:\n%s\n%s", out, errOut)
	}
	if !strings.Contains(out, "no address of Dragonfly") {
		t.Errorf("nothing says that counters were left out: %s", out)
	}
	environ = append(environ, "TENANTFLOW_DRAGONFLY_URL=redis://127.0.0.1:1/0")
	if out, errOut = run(exitFailed, "verify"); !strings.Contains(out, "NOT PROVEN") || !strings.Contains(errOut, "the counters of quotas could not be judged") {
		t.Errorf("counters that can't be judged:\n%s\n%s", out, errOut)
	}
	if _, errOut = run(exitInvalid, "verify", "--samples", "-1"); !strings.Contains(errOut, "--samples") {
		t.Errorf("got %s", errOut)
	}
}
