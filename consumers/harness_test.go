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
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/internal/totals"
	"tenantflow/internal/trace"
	"tenantflow/migrations"
	"tenantflow/sinks/clickhouse"
)

func TestMain(m *testing.M) {
	if child := os.Getenv(childEnv); child != "" {
		os.Exit(enginetest.RunChild(child, crash.run))
	}
	if child := os.Getenv(quotaChildEnv); child != "" {
		os.Exit(enginetest.RunChild(child, quotaCrash.run))
	}
	if child := os.Getenv(tenantChildEnv); child != "" {
		os.Exit(enginetest.RunChild(child, tenantCrash.run))
	}
	if child := os.Getenv(frozenEnv); child != "" {
		os.Exit(enginetest.RunChild(child, frozen.run))
	}
	enginetest.Main(m)
}

// A fixture is one installation for one test: a topic and its dead letters on a broker, a migrated database.
type fixture struct {
	kafkatest.Log
	dsn string
	db  driver.Conn
	sql *sql.DB
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
	f := &fixture{Log: *kafkatest.NewLog(t, o.broker, o.partitions), dsn: o.dsn}
	f.Group = f.Topic + ".usage"
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

// undisturbed is the session of a member that keeps its partitions although a busy machine lets it stand still for a while: what it has done
// does not come again.
const undisturbed = 45 * time.Second

// consumer is how a test wants its service.
type consumer struct {
	insertTimeout time.Duration
	session       time.Duration
	rows          int
	interval      time.Duration
	budget        int64
	outOfRange    kafka.OutOfRange
	uncorrected   bool   // nothing corrects totals, which is for tests that want to see what is wrong with them
	brokers       string // default: the fixture's
	dsn           string // default: the fixture's
	onStep        func(consumers.UsageStep)
	onPart        func(month int)
	store         func(consumers.UsageStore) consumers.UsageStore // wraps it
	log           *slog.Logger
	metrics       *kafka.Metrics
	health        *health.Tracker
	tracer        *trace.Tracer
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
		c.brokers = f.Brokers
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
	if !c.uncorrected {
		stopWatching, err := f.watchTotals(c, dsn, store)
		if err != nil {
			return err
		}
		defer stopWatching()
	}
	handler := consumers.NewUsage(s, consumers.UsageConfig{
		Limits: events.UsageLimits{FutureTolerance: time.Hour, MaxAge: 2 * 365 * 24 * time.Hour},
		OnStep: c.onStep, FilterBytes: 8 << 20, Group: f.Group,
	})
	transport := &kafkago.Transport{Dial: c.dial}
	defer transport.CloseIdleConnections()
	cfg := kafka.Config{
		Name: "usage", Brokers: strings.Split(c.brokers, ","), Transport: transport,
		Group: f.Group, Topics: []string{f.Topic},
		SessionTimeout: c.session, RebalanceTimeout: 2 * c.session, Drain: c.session - c.session/4,
		BatchRows: c.rows, BatchInterval: c.interval, CommitIdle: 100 * time.Millisecond,
		OutOfRange: c.outOfRange, Logger: c.log, Metrics: c.metrics, Health: c.health, Tracer: c.tracer,
	}
	if c.budget != 0 {
		cfg.Budget = kafka.NewBudget(c.budget)
	}
	return kafka.NewGroup(cfg, handler).Run(ctx)
}

// watchTotals corrects the totals of settled inserts, as the service does beside its consumer.
func (f *fixture) watchTotals(c consumer, dsn *chgo.Options, store *clickhouse.Store) (stop func(), err error) {
	transport := &kafkago.Transport{}
	checker, err := totals.Open(totals.Config{
		Client: &kafkago.Client{Addr: kafkago.TCP(strings.Split(c.brokers, ",")...), Transport: transport}, ClickHouse: dsn,
		Topic: f.Topic, Group: f.Group, InsertTimeout: c.insertTimeout, Logger: c.log,
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
	w := enginetest.Writer(f.Client)
	w.Topic, w.Balancer, w.BatchTimeout, w.BatchSize, w.BatchBytes = f.Topic, &kafkago.Hash{}, 5*time.Millisecond, 2000, 900<<10
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), kafkaMessages(messages)...); err != nil {
		t.Fatal(err)
	}
}

func kafkaMessages(messages []model.Message) []kafkago.Message {
	out := make([]kafkago.Message, len(messages))
	for i, m := range messages {
		out[i] = kafkago.Message{Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			out[i].Headers = append(out[i].Headers, kafkago.Header{Key: h.Key, Value: h.Value})
		}
	}
	return out
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
	for _, d := range model.CompareDeadLetters(f.Letters(t), want.DeadLetters) {
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

func (f *fixture) String() string { return fmt.Sprintf("%s on %s", f.Topic, f.Brokers) }

// usage opens the fixture's store and returns the handler of usage events.
func (f *fixture) usage(t *testing.T) kafka.BatchHandler {
	t.Helper()
	store, err := clickhouse.Open(t.Context(), clickhouse.Config{Options: options(t, f.dsn), InsertTimeout: 3 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return consumers.NewUsage(store, consumers.UsageConfig{
		Limits:      events.UsageLimits{FutureTolerance: time.Hour, MaxAge: 2 * 365 * 24 * time.Hour},
		FilterBytes: 8 << 20, Group: f.Group,
	})
}
