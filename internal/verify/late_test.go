package verify_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/internal/verify"
)

// usageAt is a usage event of one data point, at a time.
func usageAt(id string, at time.Time) *events.Record {
	e := events.Envelope{ID: id, Source: "/late", Type: "usage.recorded.v1", Time: at,
		Data: []byte(`{"company_id":"acme","user_id":"u","subscription_tier":"pro","service_name":"r","api_endpoint":"/v1","data_points_consumed":1,"processing_time_ms":1,"revenue_attributed":"0.25"}`)}
	r := &events.Record{Key: []byte("acme"), Time: time.Now()}
	r.Value, r.Headers = e.EncodeBinary()
	return r
}

// repairHeld runs a repair whose statement that begins like this is held up on its way, and gives the repair up then.
func (in *installation) repairHeld(t *testing.T, statement string) *engine.Trap {
	t.Helper()
	proxy := enginetest.Proxy(t, in.options.Addr[0])
	options := *in.options
	options.Addr = []string{proxy.Addr()}
	held := proxy.HoldRequest(func(request []byte) bool { return strings.Contains(string(request), statement) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	v, err := verify.Open(ctx, verify.Config{Client: in.client, ClickHouse: &options, Topic: in.topic, Group: in.group, InsertTimeout: insertTimeout})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := v.Run(ctx, true)
		ended <- err
	}()
	select {
	case <-held.Caught():
	case err := <-ended:
		t.Fatalf("the repair ended without %q: %v", statement, err)
	case <-time.After(enginetest.Patience):
		t.Fatalf("no %q within %s", statement, enginetest.Patience)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("a repair that was given up says that it is done")
	}
	_ = v.Close()
	return held
}

// stays makes sure for a while that a number stays what it is: of a statement that is refused there is nothing to see.
func (in *installation) stays(t *testing.T, want int64, query string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool { return in.number(t, query) != want }); err == nil {
		t.Errorf("%s: %d, want %d", query, in.number(t, query), want)
	}
}

func TestRepair_LateCorrectionIsRefused(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	stop := in.consume(t, 2000)
	defer stop()
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	in.append(t, 0, usageAt("a", at), usageAt("b", at))
	in.awaitConsumed(t)
	in.exec(t, `INSERT INTO billing_monthly_store SELECT company_id, user_id, subscription_tier, billing_period, -1, -1, '-0.25', last_activity
		FROM billing_monthly_store LIMIT 1`)
	in.awaitQuiet(t)
	held := in.repairHeld(t, "INSERT INTO billing_monthly_store")

	// The service goes on, and another repair corrects the total.
	in.append(t, 0, usageAt("c", at))
	in.awaitConsumed(t)
	in.awaitQuiet(t)
	r := in.verify(t, true)
	want(t, r, nil)
	if r.Repairs.TotalsMended != 1 {
		t.Errorf("repaired %+v", r.Repairs)
	}
	held.Release()
	in.stays(t, 3, "SELECT toInt64(sum(total_api_calls)) FROM billing_monthly")
}

// The deletion of a later row is held up; the operator removes the first one by hand; then the deletion arrives.
func TestRepair_LateDeletionIsRefused(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	stop := in.consume(t, 2000)
	defer stop()
	in.append(t, 0, usageAt("a", time.Now().Add(-time.Hour).Truncate(time.Second)))
	in.awaitConsumed(t)
	in.awaitQuiet(t)
	in.copyRow(t, 0, 0, "")
	in.awaitQuiet(t)
	held := in.repairHeld(t, "ALTER TABLE usage_tracking DELETE")
	in.exec(t, "ALTER TABLE usage_tracking DELETE WHERE _insert_by = (SELECT min(_insert_by) FROM usage_tracking) SETTINGS mutations_sync = 2")
	in.awaitDeadline(t)
	const mutations = "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND is_done"
	before := in.number(t, mutations)
	held.Release()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool { return in.number(t, mutations) > before }); err != nil {
		t.Fatal("the deletion did not arrive, or does not end")
	}
	if n := in.number(t, "SELECT count() FROM usage_tracking"); n != 1 {
		t.Errorf("%d rows, want the one that is left", n)
	}
}

// The log does not hold the rows any more, so only that they were counted twice explains lower totals.
func TestRepair_LowersByTheRowsItRemoves(t *testing.T) {
	t.Parallel()
	for name, interrupted := range map[string]bool{"at once": false, "by the next run": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, g := consumed(t, 1, model.Config{Seed: 3, Count: 200, Companies: 3, UsersPerCompany: 3})
			in.double(t, "_offset < 50")
			in.awaitQuiet(t)
			in.deleteRecords(t, 0, 190)
			if interrupted {
				in.repairHeld(t, "INSERT INTO usage_corrections")
				if n := in.number(t, "SELECT count() FROM usage_tracking"); n != g.Expected().Tables.Rows {
					t.Fatalf("%d rows, want %d", n, g.Expected().Tables.Rows)
				}
			}
			want(t, in.verify(t, true), nil)
			in.matchesModel(t, g)
		})
	}
}

// awaitDeadline waits until what a repair sent before is late.
func (in *installation) awaitDeadline(t *testing.T) {
	t.Helper()
	began := in.number(t, "SELECT toUnixTimestamp64Milli(now64(3))")
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool {
		return in.number(t, "SELECT toUnixTimestamp64Milli(now64(3))") > began+6000
	}); err != nil {
		t.Fatal(err)
	}
}

// All events are of one user, who sends all the time.
func TestRepair_BusyKeyIsJudged(t *testing.T) {
	t.Parallel()
	in := install(t, 2)
	stop := in.consume(t, 2000)
	defer stop()
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	w := enginetest.Writer(in.client)
	w.Topic, w.BatchTimeout = in.topic, 5*time.Millisecond
	t.Cleanup(func() { _ = w.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	published := make(chan int, 1)
	var pause atomic.Int64 // between two events: a look at the totals takes less
	pause.Store(int64(time.Second))
	go func() {
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				published <- n
				return
			case <-time.After(time.Duration(pause.Load())):
			}
			r := usageAt(fmt.Sprint("busy ", n), at.Add(time.Duration(n)*time.Millisecond))
			m := kafka.Message{Key: fmt.Append(nil, n), Value: r.Value}
			for _, h := range r.Headers {
				m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
			}
			if err := w.WriteMessages(t.Context(), m); err != nil {
				t.Error(err)
				published <- n
				return
			}
		}
	}()
	defer cancel()
	enough, end := context.WithTimeout(t.Context(), enginetest.Patience)
	defer end()
	if err := enginetest.Eventually(enough, func() bool { return in.number(t, "SELECT count() FROM usage_tracking") > 5 }); err != nil {
		t.Fatal(err)
	}
	// On a busy machine a look at the totals may take longer. Then the next run judges, which has twice the time.
	repaired := func() (sum verify.Repairs) {
		enginetest.Await(t, "every total to be judged", func() bool {
			r := in.verify(t, true)
			want(t, r, nil)
			done := r.Repairs.TotalsMended
			r.Repairs.TotalsMended = 0
			if r.Repairs != (verify.Repairs{}) {
				t.Errorf("repaired more than totals: %+v", r.Repairs)
			}
			sum.TotalsMended += done
			if r.NotJudged() > 0 {
				pause.Store(2 * pause.Load())
			}
			return r.NotJudged() == 0 || t.Failed()
		})
		return sum
	}
	for range 2 {
		if sum := repaired(); sum != (verify.Repairs{}) {
			t.Errorf("nothing is wrong: repaired %+v", sum)
		}
	}
	for _, change := range []string{"-1, -1, '-0.25'", "1, 1, '0.25'"} {
		in.exec(t, "INSERT INTO billing_monthly_store SELECT company_id, user_id, subscription_tier, billing_period, "+change+
			", toDateTime64(0, 3, 'UTC') FROM billing_monthly_store LIMIT 1")
		if sum := repaired(); sum.TotalsMended != 1 {
			t.Errorf("after %s: repaired %+v", change, sum)
		}
	}
	rows := in.number(t, "SELECT count() FROM usage_tracking")
	cancel()
	sent := int64(<-published)
	if sent <= rows-1 {
		t.Error("nothing was published during the last repair: the test proves nothing")
	}
	in.awaitConsumed(t)
	if n := in.number(t, "SELECT toInt64(sum(total_api_calls)) FROM billing_monthly"); n != sent {
		t.Errorf("%d calls billed of %d", n, sent)
	}
}
