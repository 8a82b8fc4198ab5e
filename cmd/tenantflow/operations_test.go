package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/operations"
)

// fresh is how old a panel of a store that answers may be, on a slow machine: its interval is 15 s at most, but for the number of
// letters that were dealt with.
const fresh = 30.0

// Each store hangs and then dies under a service. The page is served all the same and names the store, what comes from other stores stays
// fresh, and when the store is back the page says so.
func TestRun_OperationsPageWhileAStoreIsAway(t *testing.T) {
	t.Parallel()
	kafka, clickhouse, postgres, redis := enginetest.Kafka(t), enginetest.ClickHouse(t), enginetest.Postgres(t), enginetest.Redis(t)
	environ := []string{
		"TENANTFLOW_KAFKA_BROKERS=" + kafka.Addr(),
		"TENANTFLOW_CLICKHOUSE_DSN=" + clickhouse.DSN(),
		"TENANTFLOW_POSTGRES_DSN=" + postgres.DSN(),
		"TENANTFLOW_DRAGONFLY_URL=" + redis.URL(),
		"TENANTFLOW_TOPIC_PARTITIONS=64",
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0",
	}
	if _, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatalf("migrate: exit code %d\n%s", code, errOut)
	}
	p := start(t, "tenantflow", environ, "run", "--only", "api")
	report := func() *operations.Report {
		t.Helper()
		status, body := get(t, p.url+"/v1/operations")
		if status != http.StatusOK {
			t.Fatalf("%d: %s", status, body)
		}
		var r operations.Report
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return &r
	}
	until := func(what string, condition func(r *operations.Report) bool) {
		t.Helper()
		for deadline := time.Now().Add(enginetest.Patience); ; {
			r := report()
			if condition(r) {
				return
			}
			if time.Now().After(deadline) {
				text, _ := json.MarshalIndent(r, "", "  ")
				t.Fatalf("%s: not within %s\n%s", what, enginetest.Patience, text)
			}
			<-time.After(100 * time.Millisecond)
		}
	}
	well := func(r *operations.Report) bool {
		for _, at := range sources(r) {
			if at.stale {
				return false
			}
		}
		return len(r.Attention) == 0 && r.Ready
	}
	until("everything is shown", well)
	if r := report(); r.Parts.Data[0].State != operations.Elsewhere || r.Lag[0].Data.Seconds == nil || len(r.Lag[0].Data.Partitions) != 64 {
		t.Errorf("of a process with the api part only: %+v, %+v", r.Parts.Data, r.Lag[0].Data)
	}
	for _, c := range []struct {
		store              string
		freeze, thaw, kill func() error
		start              func() error
	}{
		{"Redis", redis.Freeze, redis.Thaw, redis.Kill, func() error { return redis.Start(t.Context()) }},
		{"ClickHouse", clickhouse.Freeze, clickhouse.Thaw, clickhouse.Kill, func() error { return clickhouse.Start(t.Context()) }},
		{"Postgres", postgres.Freeze, postgres.Thaw, postgres.Kill, func() error { return postgres.Start(t.Context()) }},
		{"Kafka", kafka.Freeze, kafka.Thaw, kafka.Kill, func() error { return kafka.Start(t.Context()) }},
	} {
		name := strings.Replace(c.store, "Redis", "Dragonfly", 1)
		for _, trouble := range []struct {
			what       string
			begin, end func() error
		}{{name + " hangs", c.freeze, c.thaw}, {name + " is dead", c.kill, c.start}} {
			began := time.Now()
			if err := trouble.begin(); err != nil {
				t.Fatal(err)
			}
			until(trouble.what, func(r *operations.Report) bool {
				named := false
				for _, s := range r.Stores {
					named = named || s.Data.Store == name && s.Data.State == operations.Down && s.Problem != ""
				}
				if !named {
					return false
				}
				// The others were gathered since, and are fresh, so they do not wait for this one. One of them may be silent for a
				// moment, too, where the machine stands still for longer than a look may take.
				for _, at := range sources(r) {
					if at.of != name && (at.age == nil || *at.age > min(fresh, time.Since(began).Seconds()) || at.problem != "") {
						return false
					}
				}
				return len(r.Attention) > 0 && strings.Contains(r.Attention[0], name)
			})
			// What refuses connections is said to do so.
			words := map[bool]string{true: name + " does not answer.", false: name + " can&#39;t be used: "}[strings.HasSuffix(trouble.what, "hangs")]
			if status, body := get(t, p.url+"/"); status != http.StatusOK || !strings.Contains(body, words) {
				t.Errorf("%s: the page is %d: %s", trouble.what, status, body)
			}
			took := make([]time.Duration, 40)
			for i := range took {
				asked := time.Now()
				get(t, p.url+"/?open=usage")
				took[i] = time.Since(asked)
			}
			slices.Sort(took)
			t.Logf("%s: the page with 64 partitions takes %s (median), %s (p95)", trouble.what, took[len(took)/2], took[len(took)*95/100])
			if err := trouble.end(); err != nil {
				t.Fatal(err)
			}
			until(trouble.what+": over", well)
			t.Logf("%s: done after %s", trouble.what, time.Since(began).Round(time.Second))
		}
	}
}

// A source is how one panel is, and the store that it comes from.
type source struct {
	of      string
	age     *float64
	stale   bool
	problem string
}

func sources(r *operations.Report) []source {
	all := []source{
		{"Kafka", r.DeadLetters.AgeSeconds, r.DeadLetters.Stale, r.DeadLetters.Problem},
		{"Kafka", r.Quotas.AgeSeconds, r.Quotas.Stale, r.Quotas.Problem},
		{"Kafka", r.Rejections.AgeSeconds, r.Rejections.Stale, r.Rejections.Problem},
		{"Postgres", r.Tasks.AgeSeconds, r.Tasks.Stale, r.Tasks.Problem},
		{"Postgres", r.Drift.AgeSeconds, r.Drift.Stale, r.Drift.Problem},
	}
	for _, l := range r.Lag {
		all = append(all, source{"Kafka", l.AgeSeconds, l.Stale, l.Problem})
	}
	for _, s := range r.Stores {
		all = append(all, source{s.Data.Store, s.AgeSeconds, s.Stale, s.Problem})
	}
	return all
}
