package replay_test

import (
	"fmt"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
)

// publishVoided publishes usage of which every third is taken back, resends among it.
func (w *world) publishVoided(t testing.TB, n int) {
	t.Helper()
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	var messages []kafkago.Message
	add := func(partition int, e *events.Envelope) {
		value, headers := e.EncodeBinary()
		m := kafkago.Message{Key: fmt.Appendf(nil, "k-%d", partition), Value: value, WriterData: partition}
		for _, h := range headers {
			m.Headers = append(m.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
		}
		messages = append(messages, m)
	}
	for i := range n {
		at := at.Add(time.Duration(i) * time.Millisecond)
		used := &events.Envelope{ID: fmt.Sprint("e-", i), Source: "/tests", Type: events.TypeUsageRecorded, Time: at, Data: fmt.Appendf(nil,
			`{"company_id":"c-%d","user_id":"u-%d","subscription_tier":"pro","service_name":"s","api_endpoint":"/e","data_points_consumed":%d,"processing_time_ms":2}`, i%4, i%20, i)}
		add(i%w.Partitions, used)
		if i%3 > 0 {
			continue
		}
		v := events.UsageVoided{CompanyID: fmt.Sprint("c-", i%4), UserID: fmt.Sprint("u-", i%20), Tier: "pro", Service: "s", Endpoint: "/e", Timestamp: at,
			DataPoints: uint32(i), ProcessingTime: 2000, BillingPeriod: at.UTC().Format("2006-01"), VoidsSource: "/tests", VoidsID: used.ID,
			VoidsRecordedAt: at, Reason: "wrong"}
		void, err := v.Event(&events.Envelope{ID: "request", Source: "/console"}, at.Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		add(i%w.Partitions, void)
		if i%2 == 0 {
			add(i%w.Partitions, used)
			add(i%w.Partitions, void)
		}
	}
	out := enginetest.Writer(w.client)
	out.Topic, out.BatchTimeout = w.topic(), time.Millisecond
	out.Balancer = kafkago.BalancerFunc(func(m kafkago.Message, _ ...int) int { return m.WriterData.(int) })
	defer func() { _ = out.Close() }()
	if err := out.WriteMessages(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}

// sums are how many rows there are, and the net number of calls and data points by the rows and by the daily totals.
func (w *world) sums(t testing.TB) (out [5]int64) {
	t.Helper()
	for i, query := range []string{
		"count() FROM usage_tracking", "sum(sign) FROM usage_tracking", "sum(sign * toInt64(data_points_consumed)) FROM usage_tracking",
		"sum(total_api_calls) FROM usage_daily", "sum(total_data_consumption) FROM usage_daily",
	} {
		var n int64
		what, from := query[:len(query)-len(" FROM usage_tracking")], query[len(query)-len(" FROM usage_tracking"):]
		if i > 2 {
			what, from = query[:len(query)-len(" FROM usage_daily")], query[len(query)-len(" FROM usage_daily"):]
		}
		if err := w.db.QueryRow(t.Context(), "SELECT toInt64("+what+")"+from).Scan(&n); err != nil {
			t.Fatal(err)
		}
		out[i] = n
	}
	return out
}

func (w *world) loseTables(t testing.TB) {
	t.Helper()
	ctx := chgo.Context(t.Context(), chgo.WithSettings(chgo.Settings{"mutations_sync": 2}))
	for _, table := range []string{"usage_tracking", "usage_hourly_store", "usage_daily_store", "billing_monthly_store"} {
		if err := w.db.Exec(ctx, "TRUNCATE TABLE "+table); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReplay_LeavesVoidedUsageVoided(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*replay.Request){
		"of everything":       func(*replay.Request) {},
		"of usage, by type":   func(r *replay.Request) { r.Types = []string{events.TypeUsageRecorded} },
		"of one company":      func(r *replay.Request) { r.Companies = []string{"c-0", "c-1", "c-2", "c-3"} },
		"of voids, then both": func(r *replay.Request) { r.Types = []string{events.TypeUsageRecorded, events.TypeUsageVoided} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2)
			w.publishVoided(t, 300)
			w.consume(t, nil)
			w.awaitConsumed(t)
			want := w.sums(t)
			if want[0] != 400 || want[1] != 200 || want[3] != 200 {
				t.Fatalf("stored %v", want)
			}
			s := w.station(t, small)
			nothing := s.run(t, s.create(t, everything()).ID)
			if nothing.Counts["published"] != 0 || nothing.Counts["conflict"] != 0 {
				t.Fatalf("nothing is missing, and %v", nothing.Counts)
			}
			w.loseTables(t)
			r := everything()
			ask(&r)
			done := s.run(t, s.create(t, r).ID)
			w.awaitConsumed(t)
			if got := w.sums(t); got != want || done.State != task.Done || done.Counts["published"] != 400 {
				t.Errorf("stored %v, want %v; %v", got, want, done.Counts)
			}
		})
	}
}

// Rows that were deleted by hand, past the totals: a replay says how many of them are still counted, those that are counted off among them.
func TestReplay_SaysWhichVoidsAreStillCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.publishVoided(t, 60)
	w.consume(t, nil)
	w.awaitConsumed(t)
	w.remove(t, "sign = -1")
	report, named := w.station(t).dry(t, everything())
	if len(named) != 20 || report.Counts[replay.StillCounted] != 20 {
		t.Errorf("%d are missing, %d of them still counted", len(named), report.Counts[replay.StillCounted])
	}
}
