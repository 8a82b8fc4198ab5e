package consumers_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/model"
	"tenantflow/internal/totals"
	"tenantflow/migrations"
	"tenantflow/sinks/clickhouse"
)

func TestMain(m *testing.M) {
	if child := os.Getenv(childEnv); child != "" {
		os.Exit(runChild(child))
	}
	if child := os.Getenv(quotaChildEnv); child != "" {
		os.Exit(runQuotaChild(child))
	}
	if child := os.Getenv(tenantChildEnv); child != "" {
		os.Exit(runTenantChild(child))
	}
	if child := os.Getenv(frozenEnv); child != "" {
		os.Exit(runFrozen(child))
	}
	enginetest.Main(m)
}

// A fixture is one installation for one test: a topic and its dead letters on a broker, a migrated database.
type fixture struct {
	brokers    string
	topic      string
	group      string
	dsn        string
	partitions int
	client     *kafka.Client
	db         driver.Conn
	sql        *sql.DB
}

type fixtureOptions struct {
	broker     *engine.Kafka // default: the shared embedded broker
	partitions int           // default 2
	dsn        string        // default: a database on the shared ClickHouse
}

func newFixture(t testing.TB, o fixtureOptions) *fixture {
	t.Helper()
	if o.broker == nil {
		o.broker = enginetest.SharedKafka(t)
	}
	if o.partitions == 0 {
		o.partitions = 2
	}
	if o.dsn == "" {
		o.dsn = enginetest.NewDatabase(t)
	}
	f := &fixture{brokers: o.broker.Addr(), dsn: o.dsn, partitions: o.partitions}
	f.topic = enginetest.NewTopicOn(t, o.broker, o.partitions)
	enginetest.CreateTopic(t, o.broker, events.DeadLetterTopic(f.topic), 1)
	f.group = f.topic + ".usage"
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	f.client = &kafka.Client{Addr: kafka.TCP(f.brokers), Transport: transport}
	migrate(t, f.dsn)
	f.db = open(t, f.dsn)
	f.sql = chgo.OpenDB(options(t, f.dsn))
	t.Cleanup(func() { _ = f.sql.Close() })
	return f
}

func migrate(t testing.TB, dsn string) {
	t.Helper()
	m, err := migrations.OpenClickHouse(t.Context(), options(t, dsn), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func options(t testing.TB, dsn string) *chgo.Options {
	t.Helper()
	o, err := chgo.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	o.MaxOpenConns = 32
	o.MaxIdleConns = 8
	return o
}

func open(t testing.TB, dsn string) driver.Conn {
	t.Helper()
	conn, err := chgo.Open(options(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// consumer is how a test wants its service.
type consumer struct {
	insertTimeout time.Duration
	session       time.Duration
	rows          int
	interval      time.Duration
	budget        int64
	outOfRange    consumers.OutOfRange
	brokers       string // default: the fixture's
	dsn           string // default: the fixture's
	onStep        func(consumers.UsageStep)
	onPart        func(month int)
	store         func(consumers.UsageStore) consumers.UsageStore // wraps it
	log           *slog.Logger
	metrics       *consumers.Metrics
	health        *health.Tracker
	dial          func(ctx context.Context, network, address string) (net.Conn, error) // to the broker, but for the membership
}

func (c consumer) run(ctx context.Context, f *fixture, dsn *chgo.Options) error {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	or(&c.insertTimeout, 3*time.Second)
	or(&c.session, 6*time.Second)
	or(&c.interval, 100*time.Millisecond)
	if c.rows == 0 {
		c.rows = 500
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.brokers == "" {
		c.brokers = f.brokers
	}
	var store *clickhouse.Store
	for {
		var err error
		store, err = clickhouse.Open(ctx, clickhouse.Config{Options: dsn, InsertTimeout: c.insertTimeout, OnPart: c.onPart, Logger: c.log})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil // stopped before it had begun
		}
	}
	defer func() { _ = store.Close() }()
	var s consumers.UsageStore = store
	if c.store != nil {
		s = c.store(store)
	}
	stopWatching, err := f.watchTotals(c, dsn, store)
	if err != nil {
		return err
	}
	defer stopWatching()
	handler := consumers.NewUsage(s, consumers.UsageConfig{
		Limits: events.UsageLimits{FutureTolerance: time.Hour, MaxAge: 2 * 365 * 24 * time.Hour},
		OnStep: c.onStep, FilterBytes: 8 << 20, Group: f.group,
	})
	transport := &kafka.Transport{Dial: c.dial}
	defer transport.CloseIdleConnections()
	cfg := consumers.Config{
		Name: "usage", Brokers: strings.Split(c.brokers, ","), Transport: transport,
		Group: f.group, Topics: []string{f.topic},
		SessionTimeout: c.session, RebalanceTimeout: 2 * c.session, Drain: c.session - c.session/4,
		BatchRows: c.rows, BatchInterval: c.interval, CommitIdle: 100 * time.Millisecond,
		OutOfRange: c.outOfRange, Logger: c.log, Metrics: c.metrics, Health: c.health,
	}
	if c.budget != 0 {
		cfg.Budget = consumers.NewBudget(c.budget)
	}
	return consumers.NewGroup(cfg, handler).Run(ctx)
}

// watchTotals corrects the totals of settled inserts, as the service does beside its consumer.
func (f *fixture) watchTotals(c consumer, dsn *chgo.Options, store *clickhouse.Store) (stop func(), err error) {
	transport := &kafka.Transport{}
	checker, err := totals.Open(totals.Config{
		Client: &kafka.Client{Addr: kafka.TCP(strings.Split(c.brokers, ",")...), Transport: transport}, ClickHouse: dsn,
		Topic: f.topic, Group: f.group, InsertTimeout: c.insertTimeout, Logger: c.log,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		totals.NewWatcher(checker, store, totals.WatchConfig{Interval: 500 * time.Millisecond}).Run(ctx)
	})
	return func() {
		cancel()
		watching.Wait()
		_ = checker.Close()
		transport.CloseIdleConnections()
	}, nil
}

// start runs a consumer until the test ends or stop is called, which waits for it and returns what Run returned.
func (f *fixture) start(t testing.TB, c consumer) (stop func() error) {
	t.Helper()
	dsn := c.dsn
	if dsn == "" {
		dsn = f.dsn
	}
	o := options(t, dsn)
	return background(t, func(ctx context.Context) error { return c.run(ctx, f, o) })
}

// background runs something until the test ends or stop is called, which waits for it and returns what it returned.
func background(t testing.TB, run func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var result error
	go func() {
		defer close(ended)
		result = run(ctx)
	}()
	stop = func() error {
		cancel()
		<-ended
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// traffic is a stream of messages and what must become of it.
func traffic(t testing.TB, c model.Config) ([]model.Message, model.Expected) {
	t.Helper()
	if c.Start.IsZero() {
		c.Start = time.Now().Add(-6 * time.Hour)
	}
	g, err := model.New(c)
	if err != nil {
		t.Fatal(err)
	}
	messages := make([]model.Message, 0, c.Count)
	for {
		var m model.Message
		if !g.Next(&m) {
			return messages, g.Expected()
		}
		messages = append(messages, m)
	}
}

// publish sends messages in order, per key.
func (f *fixture) publish(t testing.TB, messages []model.Message) {
	t.Helper()
	w := &kafka.Writer{
		Addr: f.client.Addr, Transport: f.client.Transport, Topic: f.topic, Balancer: &kafka.Hash{},
		RequiredAcks: kafka.RequireAll, BatchTimeout: 5 * time.Millisecond, BatchSize: 2000, BatchBytes: 900 << 10,
	}
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), kafkaMessages(messages)...); err != nil {
		t.Fatal(err)
	}
}

func kafkaMessages(messages []model.Message) []kafka.Message {
	out := make([]kafka.Message, len(messages))
	for i, m := range messages {
		out[i] = kafka.Message{Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			out[i].Headers = append(out[i].Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
	}
	return out
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, within time.Duration, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := enginetest.Eventually(ctx, condition); err != nil {
		t.Fatalf("%s: not within %s", what, within)
	}
}

// position is what the group has committed for a partition, and the end of its log.
type position struct {
	committed, first, end int64
	metadata              string // the handler's
	mark                  consumers.Mark
}

func (f *fixture) positions(t testing.TB) map[int]position {
	t.Helper()
	ids := make([]int, f.partitions)
	requests := make([]kafka.OffsetRequest, 0, 2*f.partitions)
	for i := range ids {
		ids[i] = i
		requests = append(requests, kafka.FirstOffsetOf(i), kafka.LastOffsetOf(i))
	}
	out := map[int]position{}
	committed, err := f.client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: f.group, Topics: map[string][]int{f.topic: ids}})
	if err != nil {
		return nil // a broker that is away; ask again
	}
	log, err := f.client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{f.topic: requests}})
	if err != nil {
		return nil
	}
	for _, p := range committed.Topics[f.topic] {
		at := position{committed: p.CommittedOffset}
		at.mark, at.metadata = consumers.SplitMark(p.Metadata)
		out[p.Partition] = at
	}
	for _, p := range log.Topics[f.topic] {
		at := out[p.Partition]
		at.first, at.end = p.FirstOffset, p.LastOffset
		out[p.Partition] = at
	}
	return out
}

// consumed reports whether the group has committed the whole log and nothing is pending. Quotas have metadata at any time.
func (f *fixture) consumed(t testing.TB) bool {
	at := f.positions(t)
	if len(at) != f.partitions {
		return false
	}
	for _, p := range at {
		if p.committed != p.end && !(p.committed < 0 && p.end == p.first) || p.metadata != "" && !strings.HasPrefix(p.metadata, "q1 ") {
			return false
		}
	}
	return true
}

// awaitConsumed waits until everything is consumed.
func (f *fixture) awaitConsumed(t testing.TB, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool { return f.consumed(t) }); err != nil {
		t.Fatalf("the log was not consumed within %s: %+v", within, f.positions(t))
	}
}

// letters counts the dead letters by reason, each origin once.
func (f *fixture) letters(t testing.TB) map[events.Reason]int64 {
	t.Helper()
	counts := map[events.Reason]int64{}
	seen := map[events.Origin]bool{}
	f.readAll(t, events.DeadLetterTopic(f.topic), func(r *events.Record) {
		l, err := events.ParseDeadLetter(r)
		if err != nil {
			t.Fatalf("dead letter at offset %d: %v", r.Offset, err)
		}
		if !seen[l.Origin] {
			seen[l.Origin] = true
			counts[l.Reason]++
		}
	})
	return counts
}

// readAll reads partition 0 of a topic.
func (f *fixture) readAll(t testing.TB, topic string, each func(*events.Record)) {
	t.Helper()
	res, err := f.client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(0)}}})
	if err != nil {
		t.Fatal(err)
	}
	end := res.Topics[topic][0].LastOffset
	if end == 0 {
		return
	}
	conn, err := kafka.DialLeader(t.Context(), "tcp", f.brokers, topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for at := int64(0); at < end; {
		batch := conn.ReadBatch(1, 8<<20)
		for {
			m, err := batch.ReadMessage()
			if err != nil {
				break
			}
			r := events.Record{Topic: topic, Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Time}
			for _, h := range m.Headers {
				r.Headers = append(r.Headers, events.Header{Key: h.Key, Value: h.Value})
			}
			each(&r)
			at = m.Offset + 1
		}
		if err := batch.Close(); err != nil && at < end {
			t.Fatal(err)
		}
	}
}

// differences compares rows, views and dead letters with what the model expects.
func (f *fixture) differences(t testing.TB, want model.Expected) []string {
	t.Helper()
	var out []string
	rows, err := model.ReadRows(t.Context(), f.sql)
	if err != nil {
		t.Fatal(err)
	}
	views, err := model.ReadViews(t.Context(), f.sql)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range model.Compare(rows, want.Tables) {
		out = append(out, "rows: "+d.String())
	}
	for _, d := range model.Compare(views, want.Tables) {
		out = append(out, "views: "+d.String())
	}
	for _, d := range model.CompareDeadLetters(f.letters(t), want.DeadLetters) {
		out = append(out, "dead letters: "+d.String())
	}
	return out
}

// verify fails the test where the stores differ from what the model expects.
func (f *fixture) verify(t testing.TB, want model.Expected) {
	t.Helper()
	for i, d := range f.differences(t, want) {
		if i == 10 {
			t.Error("...")
			break
		}
		t.Error(d)
	}
}

func (f *fixture) String() string { return fmt.Sprintf("%s on %s", f.topic, f.brokers) }
