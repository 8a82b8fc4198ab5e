package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/internal/topic"
	"tenantflow/migrations"
)

func TestTheServiceStoresUsageExactlyOnceOverStopsAndKills(t *testing.T) {
	t.Parallel()
	prefix := enginetest.NewTopic(t, 1) + "." // only for its name, which no other test has
	environ := []string{
		"TENANTFLOW_KAFKA_BROKERS=" + enginetest.SharedKafka(t).Addr(),
		"TENANTFLOW_CLICKHOUSE_DSN=" + enginetest.NewDatabase(t),
		"TENANTFLOW_TOPIC_PREFIX=" + prefix,
		"TENANTFLOW_GROUP_PREFIX=" + prefix + "group",
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0",
		"TENANTFLOW_USAGE_BATCH_ROWS=1000",
		"TENANTFLOW_USAGE_BATCH_INTERVAL=50ms",
		"TENANTFLOW_USAGE_INSERT_TIMEOUT=5s",
		"TENANTFLOW_KAFKA_SESSION_TIMEOUT=8s",
	}
	cfg, err := config.Load(environ)
	if err != nil {
		t.Fatal(err)
	}

	// The stores, as migrate leaves them.
	options, err := cfg.ClickHouseOptions()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := migrations.OpenClickHouse(t.Context(), options, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tables.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	transport, err := cfg.KafkaTransport()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	client := &kafka.Client{Addr: kafka.TCP(cfg.KafkaBrokers...), Transport: transport, Timeout: enginetest.Patience}
	if _, err := topic.Ensure(t.Context(), client, topic.All(topic.Settings{Prefix: prefix, Partitions: 3})); err != nil {
		t.Fatal(err)
	}

	traffic, err := model.New(model.Config{Seed: 7, Count: 20_000, Resends: 0.02, Malformed: 0.005, Late: 0.01, Start: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	usage := cfg.TopicPrefix + events.TopicUsage
	publish := func(limit int) {
		if _, err := model.Publish(t.Context(), traffic, model.Publishing{Client: client, Topic: usage, Limit: limit}); err != nil {
			t.Fatal(err)
		}
	}
	atWork := func(p *process) func() bool {
		return func() bool {
			_, body := get(t, p.url+"/metrics")
			return strings.Contains(body, `tenantflow_batch_rows_total{consumer="usage"`)
		}
	}

	publish(10_000)
	killed := start(t, "tenantflow", environ, "run", "--only", "usage")
	eventually(t, atWork(killed))
	killed.signal(t, syscall.SIGKILL)
	killed.wait(t)

	stopped := start(t, "tenantflow", environ, "run", "--only", "usage")
	eventually(t, atWork(stopped))
	stopped.signal(t, syscall.SIGTERM)
	if log, code := stopped.wait(t); code != exitDone {
		t.Fatalf("exit code %d; log:\n%s", code, log)
	}

	publish(0)
	last := start(t, "tenantflow", environ, "run", "--only", "usage")
	want := traffic.Expected()
	var differences []model.Difference
	deadline := time.Now().Add(enginetest.Patience)
	for {
		got, err := model.ReadViews(t.Context(), tables.DB())
		if err != nil {
			t.Fatal(err)
		}
		if differences = model.Compare(got, want.Tables); len(differences) == 0 {
			break
		}
		if time.Now().After(deadline) {
			_, ready := get(t, last.url+"/readyz")
			_, metrics := get(t, last.url+"/metrics")
			last.signal(t, syscall.SIGTERM)
			log, _ := last.wait(t)
			t.Fatalf("after minutes:\n%s\n%s\n%s\n%s", model.Describe(differences), ready, metrics, log)
		}
		<-time.After(100 * time.Millisecond)
	}
	eventually(t, func() bool { status, _ := get(t, last.url+"/readyz"); return status == 200 })

	// Totals of settled inserts are corrected while the service runs.
	for _, statement := range []string{"ALTER TABLE usage_daily_store DELETE WHERE company_id = (SELECT max(company_id) FROM usage_daily_store) SETTINGS mutations_sync = 2", `INSERT INTO usage_rechecks (topic, partition, from_offset, to_offset, reason, not_before)
		SELECT _topic, _partition, 0, max(_offset) + 1, 'unknown', now64(3) FROM usage_tracking GROUP BY _topic, _partition`} {
		if _, err := tables.DB().ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(enginetest.Patience); ; {
		got, err := model.ReadViews(t.Context(), tables.DB())
		if err != nil {
			t.Fatal(err)
		}
		_, metrics := get(t, last.url+"/metrics")
		differences = model.Compare(got, want.Tables)
		if len(differences) == 0 && strings.Contains(metrics, "tenantflow_usage_rechecks_pending 0") {
			break
		}
		if time.Now().After(deadline) {
			last.signal(t, syscall.SIGTERM)
			log, _ := last.wait(t)
			t.Fatalf("after minutes:\n%s\n%s", model.Describe(differences), log)
		}
		<-time.After(100 * time.Millisecond)
	}
	last.signal(t, syscall.SIGTERM)
	if log, code := last.wait(t); code != exitDone {
		t.Fatalf("exit code %d; log:\n%s", code, log)
	}
	letters, err := model.ReadDeadLetters(t.Context(), client, events.DeadLetterTopic(usage))
	if err != nil {
		t.Fatal(err)
	}
	// The kill may have cost a commit after its letters were published; then they are there again.
	for reason, n := range want.DeadLetters {
		if letters[reason] < n {
			t.Errorf("%d dead letters for %s, want at least %d", letters[reason], reason, n)
		}
	}
}
