package consumers_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/sinks/clickhouse"
)

// onBothBrokers runs a test on the shared embedded broker and on the shared Apache Kafka.
func onBothBrokers(t *testing.T, test func(t *testing.T, broker *engine.Kafka)) {
	t.Helper()
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, enginetest.SharedKafka(t))
	})
	t.Run("apache", func(t *testing.T) {
		t.Parallel()
		test(t, enginetest.SharedApacheKafka(t))
	})
}

// newLog is a fixture without a database: a topic, its dead letters and a group.
func newLog(t *testing.T, broker *engine.Kafka, partitions int, config ...kafka.ConfigEntry) *fixture {
	t.Helper()
	f := &fixture{brokers: broker.Addr(), partitions: partitions}
	f.topic = enginetest.NewTopicOn(t, broker, partitions, config...)
	enginetest.CreateTopic(t, broker, events.DeadLetterTopic(f.topic), 1)
	f.group = f.topic + ".events"
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	f.client = &kafka.Client{Addr: kafka.TCP(f.brokers), Transport: transport}
	return f
}

// A member is one member of the fixture's group, with the ways in which an operator sees how it is.
type member struct {
	cancel   context.CancelFunc
	ended    chan struct{}
	result   error
	health   *health.Tracker
	registry *prometheus.Registry
}

// join runs a member of the group until the test ends or stop is called.
func (f *fixture) join(t testing.TB, handler consumers.BatchHandler, change ...func(*consumers.Config)) *member {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	m := &member{ended: make(chan struct{}), health: health.New(time.Minute, log, "events"), registry: prometheus.NewRegistry()}
	transport := &kafka.Transport{}
	cfg := consumers.Config{
		Name: "events", Brokers: []string{f.brokers}, Transport: transport, Group: f.group, Topics: []string{f.topic},
		SessionTimeout: 6 * time.Second, RebalanceTimeout: 12 * time.Second, Drain: 4 * time.Second,
		BatchRows: 500, BatchInterval: 50 * time.Millisecond, CommitIdle: 50 * time.Millisecond,
		Metrics: consumers.NewMetrics(m.registry, "events"), Health: m.health, Logger: log,
	}
	for _, c := range change {
		c(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		defer close(m.ended)
		defer transport.CloseIdleConnections()
		m.result = consumers.NewGroup(cfg, handler).Run(ctx)
	}()
	t.Cleanup(func() { _ = m.stop() })
	return m
}

// stop ends the member as a signal would, and returns what Run returned.
func (m *member) stop() error {
	m.cancel()
	<-m.ended
	return m.result
}

// report is what readiness says about the consumer.
func (m *member) report() health.PartReport { return m.health.Readiness().Parts[0] }

// partitions is how many the member owns.
func (m *member) partitions() int { return m.report().Partitions }

// metric is the value of a counter or gauge with these labels, 0 when it is not there.
func (m *member) metric(t testing.TB, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			have := map[string]string{}
			for _, l := range metric.GetLabel() {
				if _, asked := labels[l.GetName()]; asked {
					have[l.GetName()] = l.GetValue()
				}
			}
			if maps.Equal(have, labels) {
				return metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// usage opens the fixture's store and returns the handler of usage events.
func (f *fixture) usage(t *testing.T) consumers.BatchHandler {
	t.Helper()
	store, err := clickhouse.Open(t.Context(), clickhouse.Config{Options: options(t, f.dsn), InsertTimeout: 3 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return consumers.NewUsage(store, consumers.UsageConfig{
		Limits:      events.UsageLimits{FutureTolerance: time.Hour, MaxAge: 2 * 365 * 24 * time.Hour},
		FilterBytes: 8 << 20, Group: f.group,
	})
}

// eventFunc is an EventHandler.
type eventFunc func(ctx context.Context, r *events.Record) error

func (f eventFunc) Handle(ctx context.Context, r *events.Record) error { return f(ctx, r) }

// A journal keeps the values of the records it was given, by partition, in order.
type journal struct {
	mu    sync.Mutex
	taken map[int][]string
}

func (j *journal) Handle(_ context.Context, r *events.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.taken == nil {
		j.taken = map[int][]string{}
	}
	j.taken[r.Partition] = append(j.taken[r.Partition], string(r.Value))
	return nil
}

// of returns what was taken from a partition so far.
func (j *journal) of(partition int) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.taken[partition])
}

// count is how many records were taken so far.
func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, values := range j.taken {
		n += len(values)
	}
	return n
}

// producer returns a client that writes each record to the partition it names. The records' bytes reach the broker as
// they are: a nil key or value is none.
func (f *fixture) producer(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(f.brokers), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(f.topic),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MetadataMinAge(50 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// produce writes records and sets their offsets.
func (f *fixture) produce(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	client := f.producer(t)
	defer client.Close()
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// values makes one record of a partition for each value.
func values(partition int, of ...string) []*kgo.Record {
	out := make([]*kgo.Record, len(of))
	for i, v := range of {
		out[i] = &kgo.Record{Partition: int32(partition), Key: []byte("k"), Value: []byte(v)}
	}
	return out
}
