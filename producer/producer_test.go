package producer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	tenantkafka "tenantflow/internal/kafka"
	"tenantflow/producer"
)

func TestEvents_AreWhatTheServiceReads(t *testing.T) {
	t.Parallel()
	const partitions = 4
	broker := enginetest.SharedKafka(t)
	topic := enginetest.NewTopic(t, partitions)
	for _, key := range []producer.Key{producer.ByCompany, producer.ByUser} {
		p, outcomes := start(t, producer.Config{Brokers: []string{broker.Addr()}, Topic: topic, Key: key})
		var sent []producer.Event
		for i := range 50 {
			e := usage(fmt.Sprintf("company-%d-%d", key, i), i)
			if i == 0 {
				e.ID, e.Time, e.Timestamp = uuid.NewString(), time.Now().Add(-time.Minute), time.Now().Add(-time.Hour)
				e.TraceParent, e.BillingPeriod, e.ReservationID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "2026-01", "hold-1"
				e.Service, e.Endpoint = `a "name" <&> ü`, "/v1/\u2028"
			}
			sent = append(sent, enqueue(t, p, e))
		}
		if err := closeIn(p, enginetest.Patience); err != nil {
			t.Fatal(err)
		}
		got := map[string]row{}
		for _, r := range rows(t, broker.Addr(), topic, partitions) {
			got[r.id] = r
		}
		for _, e := range sent {
			r := got[e.ID]
			u := r.usage
			stamp, period, want := e.Timestamp, e.BillingPeriod, []byte(e.CompanyID)
			if stamp.IsZero() {
				stamp = e.Time
			}
			if period == "" {
				period = stamp.UTC().Format("2006-01")
			}
			if key == producer.ByUser {
				want = []byte(e.UserID)
			}
			if string(u.Source) != source || string(u.CompanyID) != e.CompanyID || string(u.UserID) != e.UserID || string(u.Tier) != e.Tier ||
				string(u.Service) != e.Service || string(u.Endpoint) != e.Endpoint || u.DataPoints != e.DataPoints || u.ProcessingTime != 12345 ||
				u.Revenue != 1200 || u.Timestamp != stamp.UnixMilli() || string(u.BillingPeriod) != period || !bytes.Equal(r.record.Key, want) {
				t.Errorf("got %+v, key %s, want %+v", u, r.record.Key, e)
			}
			o := outcomes.one(t, e.ID)
			if o.Err != nil || o.Partition != int(r.record.Partition) || o.Offset != r.record.Offset || o.Event != e {
				t.Errorf("outcome %+v, want the event %+v at %d/%d", o, e, r.record.Partition, r.record.Offset)
			}
			all := []int{0, 1, 2, 3}
			if other := (tenantkafka.Partitioner{}).Balance(kafka.Message{Key: want}, all...); other != o.Partition {
				t.Errorf("key %s is in partition %d, the service's own publisher chooses %d", want, o.Partition, other)
			}
		}
		first := got[sent[0].ID].record
		if !strings.Contains(string(first.Value), `"reservation_id":"hold-1"`) {
			t.Errorf("no reservation_id in %s", first.Value)
		}
		trace := ""
		for _, h := range first.Headers {
			if h.Key == "ce_traceparent" {
				trace = string(h.Value)
			}
		}
		if trace != sent[0].TraceParent {
			t.Errorf("ce_traceparent is %q", trace)
		}
		if s := p.Stats(); s.Enqueued != 50 || s.Delivered != 50 || s.Failed != 0 || s.Buffered != 0 {
			t.Errorf("stats %+v", s)
		}
	}
}

// The broker has the record and its answer is lost: the record is sent again, the same.
func TestIdentity_StaysOverRetries(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	topic := enginetest.NewTopic(t, 1)
	proxy := enginetest.Proxy(t, broker.Addr())
	lost := []*engine.Trap{proxy.SwallowResponse(isProduce), proxy.SwallowResponse(isProduce)}
	p, outcomes := start(t, producer.Config{Brokers: []string{broker.Addr()}, Topic: topic, Transport: through(t, proxy)})
	e := enqueue(t, p, usage("acme", 1))
	if err := closeIn(p, enginetest.Patience); err != nil {
		t.Fatal(err)
	}
	for _, trap := range lost {
		<-trap.Caught()
	}
	got := rows(t, broker.Addr(), topic, 1)
	if len(got) != 3 {
		t.Fatalf("%d records, want the first and two retries", len(got))
	}
	for _, r := range got {
		if r.id != e.ID || !bytes.Equal(r.record.Value, got[0].record.Value) || !bytes.Equal(r.record.Key, got[0].record.Key) ||
			fmt.Sprint(r.record.Headers) != fmt.Sprint(got[0].record.Headers) {
			t.Errorf("a retry is another record: %v, want %v", r.record, got[0].record)
		}
	}
	outcomes.one(t, e.ID)
	if s := p.Stats(); s.Retries != 2 || s.LastError == nil || s.Delivered != 1 {
		t.Errorf("stats %+v, want 2 retries with their error", s)
	}
}

// What has run out of time is enqueued again as it came back, by another producer even: it is the same record.
func TestExpired_IsTheSameWhenSentAgain(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	topic := enginetest.NewTopic(t, 1)
	proxy := enginetest.Proxy(t, broker.Addr())
	held := proxy.HoldRequest(isProduce)
	p, outcomes := start(t, producer.Config{Brokers: []string{broker.Addr()}, Topic: topic, Transport: through(t, proxy),
		Timeout: 300 * time.Millisecond, RequestTimeout: 200 * time.Millisecond})
	e := enqueue(t, p, usage("acme", 1))
	<-held.Caught()
	proxy.Refuse(true)
	enginetest.Await(t, "the event is given up", func() bool { return outcomes.count() == 1 })
	o := outcomes.one(t, e.ID)
	if !errors.Is(o.Err, producer.ErrExpired) || o.Partition != -1 || o.Event != e {
		t.Fatalf("outcome %+v, want ErrExpired of %+v", o, e)
	}
	proxy.Refuse(false)
	held.Release() // the first one comes all the same, late
	again, _ := start(t, producer.Config{Brokers: []string{broker.Addr()}, Topic: topic})
	if sent := enqueue(t, again, o.Event); sent != e {
		t.Fatalf("sent again it is %+v, want %+v", sent, e)
	}
	if err := closeIn(again, enginetest.Patience); err != nil {
		t.Fatal(err)
	}
	enginetest.Await(t, "both are in the log", func() bool { return len(rows(t, broker.Addr(), topic, 1)) == 2 })
	got := rows(t, broker.Addr(), topic, 1)
	if got[0].id != e.ID || got[1].id != e.ID || !bytes.Equal(got[0].record.Value, got[1].record.Value) {
		t.Errorf("got %v and %v, want the same event twice", got[0].record, got[1].record)
	}
}

func TestPoison_IsRefusedAlone(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]*engine.Kafka{"embedded": enginetest.SharedKafka(t), "apache": enginetest.SharedApacheKafka(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := enginetest.NewTopicOn(t, broker, 1, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "20000"})
			proxy := enginetest.Proxy(t, broker.Addr())
			proxy.Refuse(true) // until all is in the buffer, so that requests are as large as they get
			p, outcomes := start(t, producer.Config{Brokers: []string{broker.Addr()}, Topic: topic, Transport: through(t, proxy)})
			poison := map[string]bool{}
			var order []string
			for i := range 300 {
				e := usage("acme", i)
				if i == 0 || i == 100 || i == 101 || i == 299 {
					e.Service = strings.Repeat("x", 30_000)
				}
				id := enqueue(t, p, e).ID
				if poison[id] = e.Service != "market-data"; !poison[id] {
					order = append(order, id)
				}
			}
			proxy.Refuse(false)
			if err := closeIn(p, enginetest.Patience); err == nil || !strings.Contains(err.Error(), "4 usage events") {
				t.Errorf("close: %v, want it to say that 4 were not delivered", err)
			}
			for id, bad := range poison {
				o := outcomes.one(t, id)
				if bad != (o.Err != nil) || bad && !errors.Is(o.Err, kafka.MessageSizeTooLarge) {
					t.Errorf("event %s, poison %t: %v", id, bad, o.Err)
				}
			}
			got := rows(t, broker.Addr(), topic, 1)
			if len(got) != len(order) {
				t.Fatalf("%d records, want %d", len(got), len(order))
			}
			for i, r := range got {
				if r.id != order[i] {
					t.Fatalf("record %d is %s, want %s: the order changed", i, r.id, order[i])
				}
			}
		})
	}
}

func TestTopic_ThatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	p, outcomes := start(t, producer.Config{Brokers: []string{enginetest.SharedKafka(t).Addr()}, Topic: "no.such.topic", Timeout: 300 * time.Millisecond})
	e := enqueue(t, p, usage("acme", 1))
	enginetest.Await(t, "the event is given up", func() bool { return outcomes.count() == 1 })
	if err := outcomes.one(t, e.ID).Err; !errors.Is(err, producer.ErrExpired) || !errors.Is(err, kafka.UnknownTopicOrPartition) || !strings.Contains(err.Error(), "no.such.topic") {
		t.Errorf("got %v, want ErrExpired that names the topic", err)
	}
}

func TestBuffer_FullMakesEnqueueWait(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	topic := enginetest.NewTopic(t, 1)
	for _, bound := range []producer.Config{{BufferEvents: 3}, {BufferBytes: 2200}} {
		proxy := enginetest.Proxy(t, broker.Addr())
		proxy.Refuse(true)
		bound.Brokers, bound.Topic, bound.Transport = []string{broker.Addr()}, topic, through(t, proxy)
		p, outcomes := start(t, bound)
		for i := range 3 {
			enqueue(t, p, usage("acme", i))
		}
		refused, err := p.TryEnqueue(usage("acme", 3))
		if !errors.Is(err, producer.ErrFull) || refused.ID == "" {
			t.Fatalf("TryEnqueue: %v of event %q, want ErrFull of an event with an id", err, refused.ID)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := p.Enqueue(ctx, refused); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Enqueue: %v, want the end of its context", err)
		}
		cancel()
		waited := make(chan error, 1)
		go func() {
			_, err := p.Enqueue(t.Context(), refused)
			waited <- err
		}()
		select {
		case err := <-waited:
			t.Fatalf("Enqueue did not wait: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		proxy.Refuse(false)
		if err := <-waited; err != nil {
			t.Errorf("Enqueue after there was room: %v", err)
		}
		if err := closeIn(p, enginetest.Patience); err != nil {
			t.Error(err)
		}
		if o := outcomes.one(t, refused.ID); o.Err != nil {
			t.Error(o.Err)
		}
		if s := p.Stats(); s.Delivered != 4 || s.Refused != 2 {
			t.Errorf("stats %+v, want 4 delivered and 2 refused", s)
		}
	}
}

func TestClose_WithTheBrokerAway(t *testing.T) {
	t.Parallel()
	p, outcomes := start(t, producer.Config{Brokers: []string{enginetest.ClosedAddress(t)}, BufferEvents: 5})
	var sent []producer.Event
	for i := range 5 {
		sent = append(sent, enqueue(t, p, usage("acme", i)))
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := p.Enqueue(t.Context(), usage("acme", 5))
		waiting <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(chan error, 1)
	go func() { closed <- p.Close(ctx) }()
	if err := <-waiting; !errors.Is(err, producer.ErrClosed) {
		t.Errorf("Enqueue that waited for room: %v, want ErrClosed", err)
	}
	if n := outcomes.count(); n != 0 {
		t.Errorf("%d events have an outcome while Close waits", n)
	}
	cancel()
	err := <-closed
	if err == nil || !strings.Contains(err.Error(), "5 usage events") {
		t.Errorf("close: %v, want it to say that 5 were not delivered", err)
	}
	for _, e := range sent {
		if o := outcomes.one(t, e.ID); !errors.Is(o.Err, producer.ErrClosed) || o.Event != e {
			t.Errorf("outcome %+v, want ErrClosed of %+v", o, e)
		}
	}
	if _, err := p.Enqueue(t.Context(), usage("acme", 6)); !errors.Is(err, producer.ErrClosed) {
		t.Errorf("Enqueue afterwards: %v, want ErrClosed", err)
	}
	if again := p.Close(t.Context()); again == nil || again.Error() != err.Error() {
		t.Errorf("closed again: %v, want %v", again, err)
	}
}

// A broker that keeps its connections and answers nothing is the one that holds goroutines. Not parallel: they are counted.
func TestClose_WithAFrozenBroker(t *testing.T) {
	broker := enginetest.Kafka(t)
	topic := enginetest.NewTopicOn(t, broker, 2)
	before := goleak.IgnoreCurrent()
	p, outcomes := start(t, producer.Config{Brokers: []string{broker.Addr()}, Topic: topic})
	first := enqueue(t, p, usage("acme", 0))
	enginetest.Await(t, "the first event is delivered", func() bool { return outcomes.count() == 1 })
	if err := broker.Freeze(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		enqueue(t, p, usage(fmt.Sprintf("c-%d", i), i))
	}
	begun := time.Now()
	err := closeIn(p, 200*time.Millisecond)
	if took := time.Since(begun); took > 30*time.Second || err == nil || !strings.Contains(err.Error(), "20 usage events") {
		t.Errorf("Close took %s of its 200ms: %v, want it to say that 20 were not delivered", took, err)
	}
	if left := goleak.Find(before); left != nil {
		t.Error(left)
	}
	if o := outcomes.one(t, first.ID); o.Err != nil {
		t.Error(o.Err)
	}
	if err := broker.Thaw(); err != nil {
		t.Fatal(err)
	}
}

func TestClose_OfNothing(t *testing.T) {
	t.Parallel()
	p, _ := start(t, producer.Config{Brokers: []string{enginetest.ClosedAddress(t)}})
	for range 2 {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestConfig_NamesAllThatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := producer.New(producer.Config{Key: 7, BufferEvents: -1, BufferBytes: -1, ChunkEvents: -1, ChunkBytes: -1, Timeout: -1, RequestTimeout: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"Brokers", "Source", "Key", "BufferEvents", "BufferBytes", "ChunkEvents", "ChunkBytes", "Timeout is", "RequestTimeout"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in: %v", name, err)
		}
	}
}

// A service that only publishes must not get the drivers of the stores along.
func TestPackage_ImportsNoStore(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"pgx", "clickhouse", "ClickHouse", "redis", "prometheus", "opentelemetry", "franz-go", "cobra", "tenantflow/internal/kafka", "tenantflow/consumers"} {
		if strings.Contains(string(out), other) {
			t.Errorf("the package depends on %s", other)
		}
	}
}
