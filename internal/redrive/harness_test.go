package redrive_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5/pgxpool"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/deadletter"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/redrive"
	"tenantflow/internal/task"
	"tenantflow/internal/totals"
	"tenantflow/internal/verify"
	"tenantflow/migrations"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

func TestMain(m *testing.M) {
	if child := os.Getenv(childEnv); child != "" {
		os.Exit(enginetest.RunChild(child, crash.run))
	}
	enginetest.Main(m)
}

// A world is an installation of one test. It can be handed to a child as JSON.
type world struct {
	Brokers    string
	Prefix     string
	ClickHouse string
	Postgres   string

	client *kafkago.Client
	db     driver.Conn
	pool   *pgxpool.Pool
}

func (w *world) usage() string { return w.Prefix + events.TopicUsage }

func (w *world) group() string { return w.Prefix + "g.usage" }

// lease is that of a process that is killed: a takeover should not take long. A process has as long to write how its task ended, and one
// that is not killed has more.
const lease = 3 * time.Second

func newWorld(t testing.TB) *world {
	t.Helper()
	broker := enginetest.SharedKafka(t)
	w := &world{Brokers: broker.Addr(), Prefix: enginetest.NewTopic(t, 1) + ".", ClickHouse: enginetest.NewDatabase(t), Postgres: postgrestest.New(t)}
	for _, name := range []string{events.TopicUsage, events.TopicSubscription, events.TopicCompany} {
		enginetest.CreateTopic(t, broker, w.Prefix+name, 3, kafkago.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"})
		enginetest.CreateTopic(t, broker, events.DeadLetterTopic(w.Prefix+name), 2)
	}
	options := w.options()
	tables, err := migrations.OpenClickHouse(t.Context(), options, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tables.Close() }()
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.client = enginetest.KafkaClient(t, w.Brokers)
	if w.db, err = chgo.Open(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.db.Close() })
	if w.pool, err = pgxpool.New(t.Context(), w.Postgres); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	return w
}

func (w *world) options() *chgo.Options {
	options, err := chgo.ParseDSN(w.ClickHouse)
	if err != nil {
		panic(err) // it is the engine's own
	}
	options.MaxOpenConns, options.MaxIdleConns = 16, 8
	return options
}

// A station is what a process that redrives has open.
type station struct {
	key    events.ReplayKey
	store  *task.Store
	kind   *redrive.Kind
	runner *task.Runner
	close  func()
}

// open makes a station. onStep may be nil.
func (w *world) open(ctx context.Context, lease time.Duration, onStep func(task.Step)) (*station, error) {
	transport := &kafkago.Transport{DialTimeout: enginetest.Patience}
	usage, err := clickhouse.Open(ctx, clickhouse.Config{Options: clickhouse.Beside(w.options())})
	if err != nil {
		return nil, err
	}
	letters, err := postgres.Open(ctx, postgres.Config{DSN: w.Postgres, Timeout: time.Minute})
	if err != nil {
		return nil, err
	}
	store, err := task.Open(ctx, task.Config{DSN: w.Postgres, Lease: lease})
	if err != nil {
		return nil, err
	}
	key, err := letters.ReplayKey(ctx)
	if err != nil {
		return nil, err
	}
	kind := redrive.New(redrive.Config{Client: &kafkago.Client{Addr: kafkago.TCP(w.Brokers), Transport: transport}, TopicPrefix: w.Prefix,
		Usage: usage, Letters: letters, Key: key, ChunkLetters: 30}) // so that there are many chunks
	return &station{
		key: key, store: store, kind: kind,
		runner: task.NewRunner(store, task.RunnerConfig{Kinds: map[string]task.Kind{task.Redrive: kind}, OnStep: onStep, Linger: 200 * time.Millisecond}),
		close: func() {
			store.Close()
			letters.Close()
			_ = usage.Close()
			transport.CloseIdleConnections()
		},
	}, nil
}

func (w *world) station(t testing.TB) *station {
	t.Helper()
	s, err := w.open(t.Context(), time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func (s *station) plan(t testing.TB, r redrive.Request) *redrive.Plan {
	t.Helper()
	if r.Topic == "" {
		r.Topic = events.TopicUsage
	}
	r.By = "ann"
	p, err := s.kind.Plan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *station) create(t testing.TB, r redrive.Request) string {
	t.Helper()
	p := s.plan(t, r)
	made, err := s.store.Create(t.Context(), task.New{Kind: task.Redrive, Topic: p.Topic, Spec: p.Spec})
	if err != nil {
		t.Fatal(err)
	}
	return made.ID
}

// run works on a task and returns it as it is at the end.
func (s *station) run(t testing.TB, id string) *task.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	done, err := s.runner.Run(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if done.State != task.Done {
		t.Fatalf("the task is %s: %s", done.State, done.Message)
	}
	return done
}

func (s *station) redrive(t testing.TB, r redrive.Request) task.Counts {
	t.Helper()
	return s.run(t, s.create(t, r)).Counts
}

// consume runs the usage consumer until stop is called.
func (w *world) consume(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	store, err := clickhouse.Open(ctx, clickhouse.Config{Options: w.options(), InsertTimeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	transport := &kafkago.Transport{}
	group := kafka.NewGroup(kafka.Config{
		Name: "usage", Brokers: []string{w.Brokers}, Transport: transport, Group: w.group(), Topics: []string{w.usage()},
		SessionTimeout: 6 * time.Second, RebalanceTimeout: 12 * time.Second, Drain: 5 * time.Second,
		BatchRows: 500, BatchInterval: 50 * time.Millisecond, CommitIdle: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}, consumers.NewUsage(store, consumers.UsageConfig{FilterBytes: 8 << 20, Group: w.group()}))
	ended := make(chan error, 1)
	go func() { ended <- group.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the consumer ended: %v", err)
		}
		transport.CloseIdleConnections()
		_ = store.Close()
	})
	t.Cleanup(stop)
	return stop
}

// awaitConsumed waits until the group has committed the whole log.
func (w *world) awaitConsumed(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool {
		ends, err := kafka.Ends(ctx, w.client, w.usage())
		if err != nil {
			return false
		}
		positions, _, err := totals.ReadPositions(ctx, w.client, w.group(), w.usage())
		if err != nil {
			return false
		}
		for _, p := range positions {
			if r := ends[p.Partition]; p.Committed != r.To && r.To > 0 || p.PendingTo > p.Committed {
				return false
			}
		}
		return true
	}); err != nil {
		t.Fatal("the log was not consumed in time")
	}
}

// write writes messages to a topic, in order, to the partitions of their keys or, for dead letters, to one.
func (w *world) write(t testing.TB, topic string, messages ...kafkago.Message) {
	t.Helper()
	writer := enginetest.Writer(w.client)
	writer.Topic, writer.Balancer, writer.BatchTimeout, writer.BatchSize = topic, kafkago.Murmur2Balancer{}, time.Millisecond, 1000
	defer func() { _ = writer.Close() }()
	if err := writer.WriteMessages(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}

// message is a record of an event in binary mode.
func message(id, eventType, key, data string) kafkago.Message {
	e := &events.Envelope{ID: id, Source: "/app", Type: eventType, Time: time.Now().Add(-time.Minute), Data: []byte(data)}
	value, headers := e.EncodeBinary()
	m := kafkago.Message{Value: value}
	if key != "" {
		m.Key = []byte(key)
	}
	for _, h := range headers {
		m.Headers = append(m.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
	}
	return m
}

// letter makes a dead letter of a message.
func letter(m kafkago.Message, group, topic string, partition int, offset int64, reason events.Reason) kafkago.Message {
	rec := &events.Record{Topic: topic, Partition: partition, Offset: offset, Key: m.Key, Value: m.Value}
	for _, h := range m.Headers {
		rec.Headers = append(rec.Headers, events.Header{Key: h.Key, Value: h.Value})
	}
	return kafkatest.Letter(rec, group, events.Reject(reason, "by hand"), time.Now())
}

// usageData is the data of a usage event.
func usageData(company, user, more string) string {
	return fmt.Sprintf(`{"company_id":%q,"user_id":%q,"subscription_tier":"pro","service_name":"s","api_endpoint":"/a","data_points_consumed":1,"processing_time_ms":1%s}`, company, user, more)
}

// rows is how many rows the events have whose ids begin with a text, and how many different ids they have.
func (w *world) rows(t testing.TB, prefix string) (rows, ids int64) {
	t.Helper()
	row := w.db.QueryRow(t.Context(), "SELECT toInt64(count()), toInt64(uniqExact(event_id)) FROM usage_tracking WHERE startsWith(event_id, ?)", prefix)
	if err := row.Scan(&rows, &ids); err != nil {
		t.Fatal(err)
	}
	return rows, ids
}

// states counts the letters of dead_letters by state.
func (w *world) states(t testing.TB) map[string]int64 {
	t.Helper()
	rows, err := w.pool.Query(t.Context(), "SELECT state, count(*) FROM dead_letters GROUP BY state")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]int64{}
	for rows.Next() {
		var state string
		var n int64
		if err := rows.Scan(&state, &n); err != nil {
			t.Fatal(err)
		}
		all[state] = n
	}
	return all
}

func (w *world) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// read reads all records of a topic, by partition.
func (w *world) read(t testing.TB, topic string) map[int][]events.Record {
	t.Helper()
	all := map[int][]events.Record{}
	ends, err := kafka.Ends(t.Context(), w.client, topic)
	if err != nil {
		t.Fatal(err)
	}
	for id, r := range ends {
		if err := kafka.ReadLog(t.Context(), w.client, topic, id, r, func(rec *events.Record) error {
			all[id] = append(all[id], kafka.CopyRecord(rec))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func (w *world) verify(t testing.TB) *verify.Report {
	t.Helper()
	v, err := verify.Open(t.Context(), verify.Config{Client: w.client, ClickHouse: w.options(), Topic: w.usage(), Group: w.group(), InsertTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	report, err := v.Run(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// of is a request for the letters of one reason.
func of(reason events.Reason, fix string) redrive.Request {
	return redrive.Request{Filter: deadletter.Filter{Reasons: []events.Reason{reason}}, Fix: []byte(fix)}
}

// childEnv carries a crash as JSON: then the test binary is not a test but a process that redrives, and kills itself.
const childEnv = "REDRIVE_CRASH_CHILD"

// A crash is where a child kills itself.
type crash struct {
	World *world
	Task  string
	Step  task.Step
	Nth   int32 // the time it comes by; from 1
}

func (c crash) run() error {
	s, err := c.World.open(context.Background(), lease, enginetest.KillAt(c.Step, c.Nth))
	if err == nil {
		_, err = s.runner.Run(context.Background(), c.Task)
	}
	return err
}

// crashAt runs a child that kills itself at a step.
func (w *world) crashAt(t testing.TB, id string, step task.Step, nth int32) {
	t.Helper()
	if !enginetest.StartChild(t, childEnv, crash{w, id, step, nth}).UntilKilled(t, string(step), nil) {
		t.Fatalf("the child never came to %s", step)
	}
}
