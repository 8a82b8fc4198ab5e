package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// lasting is how long each trouble lasts in the test at least. Reasons settle well within it, unless the machine stands still.
const lasting = 12 * time.Second

// stores are what a service needs, of its own.
type stores struct {
	kafka      *engine.Kafka
	clickhouse *engine.ClickHouse
	postgres   *engine.Postgres
	redis      *engine.Redis
	environ    []string // of a service that uses them
}

func newStores(t *testing.T, kafka *engine.Kafka) *stores {
	t.Helper()
	s := &stores{kafka: kafka, clickhouse: enginetest.ClickHouse(t), postgres: enginetest.Postgres(t), redis: enginetest.Redis(t)}
	s.environ = []string{
		"TENANTFLOW_KAFKA_BROKERS=" + s.kafka.Addr(),
		"TENANTFLOW_CLICKHOUSE_DSN=" + s.clickhouse.DSN(),
		"TENANTFLOW_POSTGRES_DSN=" + s.postgres.DSN(),
		"TENANTFLOW_DRAGONFLY_URL=" + s.redis.URL(),
		"TENANTFLOW_USAGE_INSERT_TIMEOUT=3s",
		"TENANTFLOW_USAGE_BATCH_INTERVAL=50ms",
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0",
	}
	return s
}

// Each store is gone or hangs for a while under a service with many partitions. The reasons say what is true, and the log says each
// trouble once when it begins and once when it is over.
func TestRun_TroubleOfStoresIsSaidOnceAndTruly(t *testing.T) {
	t.Parallel()
	s := newStores(t, enginetest.Kafka(t))
	environ, kafka, clickhouse, postgres, redis := append(s.environ, "TENANTFLOW_TOPIC_PARTITIONS=32"), s.kafka, s.clickhouse, s.postgres, s.redis
	if _, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatalf("migrate: exit code %d\n%s", code, errOut)
	}
	p := start(t, "tenantflow", environ, "run")
	until := func(what string, condition func(r readiness) bool) readiness {
		t.Helper()
		for deadline := time.Now().Add(enginetest.Patience); ; {
			_, body := get(t, p.url+"/readyz")
			var r readiness
			if err := json.Unmarshal([]byte(body), &r); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if condition(r) {
				return r
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within %s\n%s", what, enginetest.Patience, body)
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	ready := func(r readiness) bool { return r.Ready }
	until("ready", ready)
	produce := func(id string) {
		t.Helper()
		var lines strings.Builder
		for i := range 64 {
			fmt.Fprintf(&lines, `{"specversion":"1.0","id":"%s-%d","source":"/test","type":"usage.recorded.v1","time":%q,"partitionkey":"acme-%d","data":{"company_id":"acme-%d","user_id":"u%d","subscription_tier":"pro","service_name":"s","api_endpoint":"/","data_points_consumed":1,"processing_time_ms":1}}`+"\n",
				id, i, time.Now().UTC().Format(time.RFC3339Nano), i, i, i)
		}
		file := filepath.Join(t.TempDir(), id)
		if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errOut, code := tenantflow(t, environ, "produce", "--topic", "usage.events", "--file", file); code != exitDone {
			t.Fatalf("produce: exit code %d\n%s", code, errOut)
		}
	}
	for _, c := range []struct {
		name       string
		begin, end func() error
		part       string // that must say something
		words      string // of its reason
	}{
		{"Redis hangs", redis.Freeze, redis.Thaw, "quota", "no answer within"},
		{"ClickHouse hangs", clickhouse.Freeze, clickhouse.Thaw, "usage", "no answer within"},
		{"Postgres is gone", postgres.Kill, func() error { return postgres.Start(t.Context()) }, "subscription", "refused"},
		{"Kafka is gone", kafka.Kill, func() error { return kafka.Start(t.Context()) }, "usage", ""},
	} {
		began := time.Now()
		t.Logf("%s from %s", c.name, began.UTC().Format(time.TimeOnly))
		doing(t, c.begin())
		if !strings.HasPrefix(c.name, "Kafka") {
			produce(strings.ReplaceAll(c.name, " ", "-"))
		}
		var reason string
		// The first tries fail in other ways, and where the machine stands still they are the only ones for as long.
		until(c.name+", and the reason says "+c.words, func(r readiness) bool {
			for _, f := range r.Failing {
				if f.Part == c.part && time.Since(f.Since) > lasting {
					reason = f.Reason
					return strings.Contains(reason, c.words)
				}
			}
			return false
		})
		t.Logf("%s: %s", c.name, reason)
		doing(t, c.end())
		ended := time.Now()
		until(c.name+" is over", ready)
		t.Logf("%s: ready again %s after it ended", c.name, time.Since(ended))
	}
	p.signal(t, syscall.SIGTERM)
	log, code := p.wait(t)
	if code != exitDone {
		t.Errorf("exit code %d", code)
	}
	warnings := 0
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"level":"WARN"`) || strings.Contains(line, `"level":"ERROR"`) {
			warnings++
		}
	}
	if warnings > 80 {
		t.Errorf("%d warnings of four troubles", warnings)
	}
	for _, words := range []string{"max open conn", "renewed"} {
		if strings.Contains(log, words) {
			t.Errorf("the log says %q", words)
		}
	}
	if over := strings.Count(log, `"msg":"part is not ready: over"`); over < 4 {
		t.Errorf("of four troubles the end of %d is said", over)
	}
	t.Logf("%d warnings, %d bytes", warnings, len(log))
	if t.Failed() {
		t.Log(log)
	}
}

type readiness struct {
	Ready   bool
	Failing []struct {
		Part, Reason string
		Since        time.Time
	}
}

func doing(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
