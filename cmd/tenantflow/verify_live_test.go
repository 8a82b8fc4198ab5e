package main

import (
	"context"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/verify"
)

// The whole service takes usage, company and subscription events, is killed again and again, and verify looks at it meanwhile: it finds
// nothing, because nothing is wrong. TENANTFLOW_TEST_VERIFY_RUNS says how often it looks ("make verify-live": 20 times).
func TestVerify_KilledServiceHasNoFinding(t *testing.T) {
	t.Parallel()
	runs := enginetest.Number(t, "TENANTFLOW_TEST_VERIFY_RUNS", 1)
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
		"TENANTFLOW_USAGE_BATCH_INTERVAL=100ms",
		"TENANTFLOW_USAGE_INSERT_TIMEOUT=5s",
		"TENANTFLOW_KAFKA_SESSION_TIMEOUT=8s",
		"TENANTFLOW_VERIFY_INTERVAL=1m",
	}
	if _, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(errOut)
	}
	live := newLiveEvents(t, environ, prefix, 9)
	stop, published := make(chan struct{}), make(chan error, 1)
	go func() { published <- publishAll(t.Context(), live, stop) }()

	begin := func() *process {
		t.Helper()
		p := start(t, "tenantflow", environ, "run")
		within, cancel := context.WithTimeout(t.Context(), enginetest.Patience) // the group waits for the member that was killed
		defer cancel()
		if err := enginetest.Eventually(within, func() bool { // it has its partitions, and is at work in all parts
			_, body := get(t, p.url+"/metrics")
			for _, part := range []string{"usage", "quota", "company", "subscription"} {
				if !strings.Contains(body, `tenantflow_batch_rows_total{consumer="`+part+`"`) {
					return false
				}
			}
			return true
		}); err != nil {
			t.Fatal("the service is not at work in all parts")
		}
		return p
	}
	var judged, results int64
	var busy bool
	for run := range runs {
		p := begin()
		// In the middle of it, and once more after the kill, with no process at work.
		for _, kill := range []bool{true, false} {
			out, errOut, _ := tenantflow(t, environ, "verify", "-o", "json")
			var r verify.Report
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatalf("%v: %s", err, errOut)
			}
			if r.Differences() != 0 {
				t.Errorf("run %d, after a kill: %v: %+v", run, !kill, r.Findings)
			}
			busy = busy || r.Sum().NotConsumed > 0 || r.Sum().RowsAfter > 0
			judged, results = max(judged, r.Sum().Judged), max(results, r.Results.Looked)
			if kill {
				p.signal(t, syscall.SIGKILL)
				p.wait(t)
			}
		}
	}
	close(stop)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	// At last everything is handled, and everything is proven.
	begin()
	r := allProven(t, environ)
	if judged, results = r.Sum().Judged, r.Results.Looked; !busy || judged < 500 || results < 50 {
		t.Errorf("the service was at work: %v; %d offsets judged, %d results looked for: the test proves little", busy, judged, results)
	}
}

// publishAll publishes, a few events at a time, until stop is closed, and at least twenty times.
func publishAll(ctx context.Context, events *liveEvents, stop <-chan struct{}) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		if err := events.publish(ctx); err != nil {
			return err
		}
		select {
		case <-stop:
			if n >= 20 {
				return nil
			}
		case <-tick.C:
		}
	}
}
