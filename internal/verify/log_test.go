package verify_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/events"
	"tenantflow/internal/model"
	"tenantflow/internal/verify"
)

// kgoClient is another client, for what kafka-go can't do.
func (in *installation) kgoClient(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(in.client.Addr.String()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// deleteRecords makes the log of a partition begin at an offset; -1: at its end.
func (in *installation) deleteRecords(t *testing.T, partition int, before int64) {
	t.Helper()
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.TimeoutMillis = 10_000
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic = in.topic
	topic.Partitions = []kmsg.DeleteRecordsRequestTopicPartition{{Partition: int32(partition), Offset: before}}
	request.Topics = append(request.Topics, topic)
	answer, err := request.RequestWith(t.Context(), in.kgoClient(t))
	if err != nil {
		t.Fatal(err)
	}
	if code := answer.Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("delete records: error %d", code)
	}
}

func TestRowsFromBeforeTheStartOfTheLogAreOnlyCounted(t *testing.T) {
	t.Parallel()
	in, g := consumed(t, 1, usual())
	in.deleteRecords(t, 0, 1234)
	before := in.number(t, "SELECT count() FROM usage_tracking WHERE _offset < 1234")
	r := in.verify(t, false)
	want(t, r, nil)
	s := r.Sum()
	if s.RowsBefore != before || s.Judged != 5000-1234 || s.Rows != g.Expected().Tables.Rows-before {
		t.Errorf("%+v, want %d rows before the start", s, before)
	}
}

func TestALogThatIsCutWhileItIsReadIsNoDifference(t *testing.T) {
	t.Parallel()
	c := usual()
	c.Count = 20_000
	in, g := consumed(t, 1, c)
	var cut sync.Once
	r := in.verify(t, false, func(c *verify.Config) {
		c.Progress = func(p verify.Progress) {
			if p.Stage == "log" && p.Done > 4000 {
				cut.Do(func() { in.deleteRecords(t, 0, 15_000) })
			}
		}
	})
	want(t, r, nil)
	if s := r.Sum(); s.Judged != 5000 || r.Partitions[0].LogStart != 15_000 {
		t.Errorf("%+v of %d messages", r.Partitions, g.Expected().Messages)
	}
}

func TestOffsetsThatWereDroppedBeforeTheyWereReadAreLost(t *testing.T) {
	t.Parallel()
	in, _ := consumed(t, 1, usual())
	in.commit(t, 0, 1000)
	in.deleteRecords(t, 0, 2000)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.LostUnread: 1})
}

func TestMarkersAndAbortedTransactionsAreNoEvents(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	g, err := model.New(model.Config{Seed: 5, Count: 300, Start: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	client := in.kgoClient(t, kgo.TransactionalID(in.topic), kgo.DefaultProduceTopic(in.topic))
	for n := range 3 {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		var m model.Message
		for range 100 {
			g.Next(&m)
			r := &kgo.Record{Key: bytes.Clone(m.Key), Value: bytes.Clone(m.Value)}
			for _, h := range m.Headers {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: bytes.Clone(h.Value)})
			}
			client.Produce(t.Context(), r, nil)
		}
		if err := client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := client.EndTransaction(t.Context(), kgo.TransactionEndTry(n != 1)); err != nil {
			t.Fatal(err)
		}
	}
	stop := in.consume(t, 1000)
	in.awaitConsumed(t)
	stop()
	in.awaitQuiet(t)
	r := in.verify(t, false)
	want(t, r, nil)
	if s := r.Sum(); s.Rows != 200 || s.NoEvent != 103 || s.Judged != 303 {
		t.Errorf("%+v", s)
	}
	// A row made of an aborted event is foreign.
	in.copyRow(t, 0, 0, "'aborted' AS event_id, toInt64(150) AS _offset")
	in.awaitQuiet(t)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.ForeignRow: 1})
}

func TestARowMayLeaveByItsAgeButAnEventTooOldFromTheBeginningNeedsADeadLetter(t *testing.T) {
	t.Parallel()
	in, _ := consumed(t, 1, usual())
	const day = 24 * time.Hour
	age := func(id string, timestamp, published time.Duration) *events.Record {
		return &events.Record{
			Key:  []byte("acme"),
			Time: time.Now().Add(-published),
			Value: []byte(`{"company_id":"acme","user_id":"u","subscription_tier":"pro","service_name":"s","api_endpoint":"/","data_points_consumed":1,` +
				`"processing_time_ms":1,"timestamp":"` + time.Now().Add(-timestamp).UTC().Format(time.RFC3339) + `"}`),
			Headers: []events.Header{{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte(id)}, {Key: "ce_source", Value: []byte("/old")},
				{Key: "ce_type", Value: []byte("usage.recorded.v1")}, {Key: "ce_time", Value: []byte(time.Now().UTC().Format(time.RFC3339))}},
		}
	}
	first := in.append(t, 0, age("left by its age", 735*day, 6*day), age("too old when it was published", 735*day, 0), age("young", 5*day, 0))
	in.commit(t, 0, first+3)
	r := in.verify(t, false)
	want(t, r, map[verify.Kind]int64{verify.Missing: 2})
	if r.Sum().Expired != 1 {
		t.Errorf("%+v", r.Sum())
	}
}

func TestExtremeValuesAreComparedExactly(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	// One time for all: a resend repeats the data, the time among them.
	now := time.Now().UTC().Format(time.RFC3339Nano)
	event := func(id, data string) *events.Record {
		return &events.Record{
			Key:   []byte("acme"),
			Time:  time.Now(),
			Value: []byte(`{"company_id":"acme","user_id":"u","subscription_tier":"pro",` + data + `}`),
			Headers: []events.Header{{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte(id)}, {Key: "ce_source", Value: []byte("/extreme")},
				{Key: "ce_type", Value: []byte("usage.recorded.v1")}, {Key: "ce_time", Value: []byte(now)}},
		}
	}
	largest := `"service_name":"s","api_endpoint":"/","data_points_consumed":4294967295,"processing_time_ms":999999999999999.999,"revenue_attributed":"999999999999.999999"`
	in.append(t, 0,
		event("it's \\ largest", largest), event("it's \\ largest", largest),
		event("line feeds", `"service_name":"a\nb","api_endpoint":"c","data_points_consumed":0,"processing_time_ms":0`),
		event("one of them elsewhere", `"service_name":"a","api_endpoint":"b\nc","data_points_consumed":0,"processing_time_ms":0`),
		event("not ASCII", `"service_name":"日本","api_endpoint":"\u0000é","data_points_consumed":1,"processing_time_ms":0.0005`),
	)
	stop := in.consume(t, 1000)
	in.awaitConsumed(t)
	stop()
	in.awaitQuiet(t)
	r := in.verify(t, false)
	want(t, r, nil)
	if s := r.Sum(); s.Rows != 4 || s.Duplicates != 1 || s.Judged != 5 {
		t.Errorf("%+v", s)
	}
	// Totals of such sizes are mended to the last digit, and keys with any character are found again.
	in.exec(t, "TRUNCATE TABLE usage_hourly_store")
	in.exec(t, "TRUNCATE TABLE billing_monthly_store")
	r = in.verify(t, true)
	want(t, r, nil)
	if r.Repairs.TotalsMended != 5 {
		t.Errorf("repaired %+v", r.Repairs)
	}
	// The same place and identity, with the line feed moved from one field to the next.
	in.exec(t, "ALTER TABLE usage_tracking UPDATE service_name = 'a', api_endpoint = 'b\\nc' WHERE event_id = 'line feeds' SETTINGS mutations_sync = 2")
	if r = in.verify(t, false); r.Findings.Count(verify.AlteredRow) != 1 {
		t.Errorf("%+v", r.Findings)
	}
	// And a row of such an identity is removed again.
	in.copyRow(t, 0, 0, "")
	in.awaitQuiet(t)
	if r = in.verify(t, true); r.Repairs.RowsRemoved != 1 || r.Findings.Count(verify.DoubledRow) != 0 {
		t.Errorf("repaired %+v, %+v", r.Repairs, r.Findings)
	}
}
