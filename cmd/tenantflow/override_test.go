package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
)

// The whole service: an override is seen by quota checks, answers and threshold events soon after it is stored, and ends by itself.
func TestRun_AnOverrideIsSeenAndEnds(t *testing.T) {
	t.Parallel()
	s := newStores(t, enginetest.Kafka(t))
	s.environ = append(s.environ, "TENANTFLOW_TOPIC_PARTITIONS=1")
	if _, errOut, code := tenantflow(t, s.environ, "migrate"); code != exitDone {
		t.Fatalf("migrate: exit code %d\n%s", code, errOut)
	}
	p := start(t, "tenantflow", s.environ, "run")
	conn, err := pgx.Connect(t.Context(), s.postgres.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	n := 0
	produce := func(topic, eventType, data string) {
		t.Helper()
		n++
		file := filepath.Join(t.TempDir(), fmt.Sprint(n))
		line := fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/test","type":%q,"time":%q,"partitionkey":"acme","data":{"company_id":"acme",%s}}`+"\n",
			n, eventType, time.Now().UTC().Format(time.RFC3339Nano), data)
		if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errOut, code := tenantflow(t, s.environ, "produce", "--topic", topic, "--file", file); code != exitDone {
			t.Fatalf("produce %s: exit code %d\n%s", eventType, code, errOut)
		}
	}
	// asks waits until an answer has a text.
	asks := func(path, want string) {
		t.Helper()
		enginetest.Await(t, path+" to say "+want, func() bool {
			_, body := get(t, p.url+path)
			return strings.Contains(body, want)
		})
	}
	stored := func(condition string) {
		t.Helper()
		enginetest.Await(t, condition, func() (holds bool) {
			if err := conn.QueryRow(t.Context(), "SELECT "+condition).Scan(&holds); err != nil {
				t.Fatal(err)
			}
			return holds
		})
	}
	const quota = "/v1/users/u1/quota"
	produce("company.events", events.TypeCompanyRegistered, `"name":"Acme","billing_email":"b@acme.example","initial_user":{"user_id":"u1","email":"u1@acme.example"}`)
	asks(quota, `"daily_limit":1000`)
	usage := `"user_id":"u1","subscription_tier":"free","service_name":"s","api_endpoint":"/","data_points_consumed":1,"processing_time_ms":1`
	for range 4 {
		produce("usage.events", events.TypeUsageRecorded, usage)
	}
	asks(quota, `"current_usage":4`)

	ends := time.Now().Add(15 * time.Second).UTC().Truncate(time.Second)
	produce("company.events", events.TypeLimitsOverridden, fmt.Sprintf(`"limits":{"daily_api_calls":5,"max_users":3,"storage_mb":0},"reason":"a trial","expires_at":%q`, ends.Format(time.RFC3339)))
	stored("count(*) = 3 FROM limit_overrides")
	began := time.Now()
	asks(quota, `"daily_limit":5`)
	t.Logf("seen by the quota check %s after it was found stored", time.Since(began).Round(time.Millisecond))
	asks("/v1/users/u1/subscription", `"daily_api_calls":5`)
	asks("/v1/companies/acme/config", `"max_users":3`)
	asks("/v1/companies/acme/subscription", `{"limit_name":"max_users","value":3,"set_at":`)
	asks("/v1/companies/acme/subscription/preview?new_tier=pro", `"max_users":3`)
	asks("/v1/companies/acme/subscription/preview?new_tier=pro&at="+ends.Add(time.Second).Format(time.RFC3339), `"max_users":25`)
	stored("NOT check_storage_quota('acme', 0)")
	produce("usage.events", events.TypeUsageRecorded, usage)
	asks(quota, `"exceeded":true`)
	if out := looked(t, s.environ, "tenant", "show", "acme"); !strings.Contains(out, "max_users 3 until "+ends.Format(time.RFC3339)) || !strings.Contains(out, "a trial") {
		t.Errorf("tenant show says\n%s", out)
	}
	asks("/metrics", `tenantflow_tenant_limit_overrides{limit="max_users"} 1`)

	stored("count(*) = 0 FROM limit_overrides")
	if now := time.Now(); now.Before(ends) {
		t.Errorf("it has ended at %s, %s early", now, ends.Sub(now))
	} else {
		t.Logf("found ended %s after its time", now.Sub(ends).Round(time.Millisecond))
	}
	began = time.Now()
	asks(quota, `"daily_limit":1000`)
	t.Logf("seen by the quota check %s after it was found ended", time.Since(began).Round(time.Millisecond))
	asks("/v1/companies/acme/subscription", `"overrides":[]`)
	asks("/v1/companies/acme/config", `"max_users":1`)
	stored("check_storage_quota('acme', 0)")
	asks("/metrics", `tenantflow_tenant_limit_overrides{limit="max_users"} 0`)

	log := &kafkatest.Log{Brokers: s.kafka.Addr(), Client: &kafkago.Client{Addr: kafkago.TCP(s.kafka.Addr()), Timeout: enginetest.Patience}}
	exceeded, changes := 0, map[string]int{}
	enginetest.Await(t, "the threshold event and the results", func() bool {
		exceeded, changes = 0, map[string]int{}
		for topic, take := range map[string]func(data map[string]any){
			"quota.events": func(data map[string]any) {
				if data["daily_limit"] == 5.0 && data["threshold_percentage"] == 100.0 {
					exceeded++
				}
			},
			"company.results": func(data map[string]any) {
				if change, there := data["change"].(string); there {
					changes[change]++
				}
			},
		} {
			log.ReadAll(t, topic, func(r *events.Record) {
				var data map[string]any
				if err := json.Unmarshal(r.Value, &data); err != nil {
					t.Fatal(err)
				}
				take(data)
			})
		}
		return exceeded > 0 && changes["ended"] >= 3
	})
	if exceeded != 1 || changes["overridden"] != 1 || changes["ended"] != 3 {
		t.Errorf("%d threshold events at the limit of 5, changes of limits %v", exceeded, changes)
	}
}
