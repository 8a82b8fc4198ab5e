package producer_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/producer"
)

const source = "/data-bridge/test"

// A journal keeps the outcomes that a producer reports, by event.
type journal struct {
	mu  sync.Mutex
	of  map[string][]producer.Outcome
	all int
}

func (j *journal) done(o producer.Outcome) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.of == nil {
		j.of = map[string][]producer.Outcome{}
	}
	j.of[o.Event.ID] = append(j.of[o.Event.ID], o)
	j.all++
}

func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all
}

// one is the only outcome of an event.
func (j *journal) one(t *testing.T, id string) producer.Outcome {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if got := j.of[id]; len(got) != 1 {
		t.Fatalf("event %s has %d outcomes, want 1: %+v", id, len(got), got)
	}
	return j.of[id][0]
}

// start makes a producer whose outcomes are in the journal, closed at the test's end.
func start(t *testing.T, config producer.Config) (*producer.Producer, *journal) {
	t.Helper()
	var j journal
	config.Source, config.Done = source, j.done
	p, err := producer.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closeIn(p, time.Millisecond) }) // what a test has left there is looked at by the test
	return p, &j
}

func closeIn(p *producer.Producer, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return p.Close(ctx)
}

// through is a transport that reaches every broker by a proxy.
func through(t *testing.T, proxy *engine.Proxy) *kafka.Transport {
	transport := &kafka.Transport{MetadataTTL: 500 * time.Millisecond, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, proxy.Addr())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// isProduce reports whether what a client has sent begins a Produce request: API key 0, behind the length.
func isProduce(request []byte) bool {
	return len(request) >= 8 && binary.BigEndian.Uint16(request[4:]) == 0
}

// usage is the nth event of a user of company.
func usage(company string, n int) producer.Event {
	return producer.Event{
		CompanyID: company, UserID: fmt.Sprintf("u-%d", n%7), Tier: "pro", Service: "market-data", Endpoint: "/v1/ticks",
		DataPoints: uint32(n), ProcessingTime: 12345 * time.Microsecond, Revenue: "0.0012",
	}
}

func enqueue(t *testing.T, p *producer.Producer, e producer.Event) producer.Event {
	t.Helper()
	sent, err := p.Enqueue(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// A row is a record as the service's decoder reads it.
type row struct {
	record     *kgo.Record
	id         string
	dataPoints uint32
	usage      events.Usage
}

// rows reads the whole topic: partitions one after the other, each in its order. A record that the service would refuse fails the test.
func rows(t *testing.T, broker, topic string, partitions int) []row {
	t.Helper()
	ask := map[string][]kafka.OffsetRequest{}
	from := map[int32]kgo.Offset{}
	for i := range partitions {
		ask[topic] = append(ask[topic], kafka.LastOffsetOf(i))
		from[int32(i)] = kgo.NewOffset().AtStart()
	}
	res, err := enginetest.KafkaClient(t, broker).ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: ask})
	if err != nil {
		t.Fatal(err)
	}
	end := int64(0)
	for _, o := range res.Topics[topic] {
		end += o.LastOffset
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	of := make([][]row, partitions)
	for n := int64(0); n < end; {
		got := client.PollFetches(t.Context())
		if err := got.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range got.Records() {
			of[r.Partition] = append(of[r.Partition], decode(t, r))
			n++
		}
	}
	var all []row
	for _, one := range of {
		all = append(all, one...)
	}
	return all
}

func decode(t *testing.T, r *kgo.Record) row {
	t.Helper()
	record := events.Record{Topic: r.Topic, Partition: int(r.Partition), Offset: r.Offset, Time: r.Timestamp, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		record.Headers = append(record.Headers, events.Header{Key: h.Key, Value: h.Value})
	}
	out := row{record: r}
	if err := events.NewUsageDecoder(events.UsageLimits{}).Decode(&record, r.Timestamp, &out.usage); err != nil {
		t.Fatalf("record %d/%d: %v", r.Partition, r.Offset, err)
	}
	out.id, out.dataPoints = string(out.usage.ID), out.usage.DataPoints
	return out
}

// ids counts the rows of each event.
func ids(of []row) map[string]int {
	n := map[string]int{}
	for _, r := range of {
		n[r.id]++
	}
	return n
}
