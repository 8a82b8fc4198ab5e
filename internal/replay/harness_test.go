package replay_test

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
	"tenantflow/internal/replay"
	"tenantflow/internal/task"
	"tenantflow/internal/totals"
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

// A world is an installation of one test: topics, a migrated ClickHouse and a migrated Postgres. It can be handed to a child as JSON.
type world struct {
	Brokers    string
	Prefix     string
	ClickHouse string
	Postgres   string
	Partitions int
	Chunk      int // records of a chunk of a replay in a child; 0: those of small

	shipped   bool                 // the consumer and the lag have the settings of the product, not those of quick tests
	registry  *prometheus.Registry // where the consumers show their metrics; nil: nowhere
	batchRows int                  // of the consumer; 0: 500
	client    *kafkago.Client
	db        driver.Conn
	pool      *pgxpool.Pool
}

func (w *world) topic() string { return w.Prefix + events.TopicUsage }

func (w *world) group() string { return w.Prefix + "g.usage" }

const (
	insertTimeout = 3 * time.Second
	// lease is that of a process that is killed: a takeover should not take long. A process has as long to write how its task ended, and
	// one that is not killed has more.
	lease = 3 * time.Second
)

func newWorld(t testing.TB, partitions int) *world {
	t.Helper()
	return newWorldOn(t, enginetest.SharedKafka(t), postgrestest.New(t), partitions)
}

// newWorldOn makes a world on a broker, and in a migrated database of Postgres, which the test may kill.
func newWorldOn(t testing.TB, broker *engine.Kafka, dsn string, partitions int) *world {
	t.Helper()
	w := &world{Brokers: broker.Addr(), Prefix: enginetest.NewTopicOn(t, broker, 1) + ".", Partitions: partitions,
		ClickHouse: enginetest.NewDatabase(t), Postgres: dsn}
	for _, name := range []string{events.TopicUsage, events.TopicSubscription, events.TopicCompany} {
		enginetest.CreateTopic(t, broker, w.Prefix+name, partitions)
		enginetest.CreateTopic(t, broker, events.DeadLetterTopic(w.Prefix+name), 1)
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

// A station is what a process that replays has open.
type station struct {
	store  *task.Store
	kind   *replay.Kind
	runner *task.Runner
	close  func()
}

// open makes a station. onStep may be nil.
func (w *world) open(ctx context.Context, lease time.Duration, onStep func(task.Step), change ...func(*replay.Config)) (*station, error) {
	transport := &kafkago.Transport{DialTimeout: enginetest.Patience}
	client := &kafkago.Client{Addr: kafkago.TCP(w.Brokers), Transport: transport}
	usage, err := clickhouse.Open(ctx, clickhouse.Config{Options: clickhouse.Beside(w.options())})
	if err != nil {
		return nil, err
	}
	tenants, err := postgres.Open(ctx, postgres.Config{DSN: w.Postgres, Timeout: time.Minute})
	if err != nil {
		return nil, err
	}
	store, err := task.Open(ctx, task.Config{DSN: w.Postgres, Lease: lease})
	if err != nil {
		return nil, err
	}
	key, err := tenants.ReplayKey(ctx)
	if err != nil {
		return nil, err
	}
	cfg := replay.Config{
		Client: client, TopicPrefix: w.Prefix, GroupPrefix: w.Prefix + "g", Usage: usage, Tenants: tenants, Key: key,
		BatchInterval: 100 * time.Millisecond, ChunkRecords: 1000, ChunkEvents: 200,
		Sources: map[string]replay.OpenSource{replay.SourceFile: replay.OpenFile},
	}
	if w.shipped {
		cfg.BatchInterval, cfg.ChunkRecords, cfg.ChunkEvents = kafka.DefaultBatchInterval, 0, 0
	}
	for _, f := range change {
		f(&cfg)
	}
	kind := replay.New(cfg)
	return &station{
		store: store, kind: kind,
		runner: task.NewRunner(store, task.RunnerConfig{Kinds: map[string]task.Kind{task.Replay: kind}, OnStep: onStep, Linger: 200 * time.Millisecond}),
		close: func() {
			store.Close()
			tenants.Close()
			_ = usage.Close()
			transport.CloseIdleConnections()
		},
	}, nil
}

// small makes many chunks.
func small(c *replay.Config) { c.ChunkRecords, c.ChunkEvents = 400, 10 }

// chunks are those of the world's children.
func (w *world) chunks(c *replay.Config) {
	if small(c); w.Chunk > 0 {
		c.ChunkRecords, c.ChunkEvents = w.Chunk, w.Chunk
	}
}

func (w *world) station(t testing.TB, change ...func(*replay.Config)) *station {
	t.Helper()
	s, err := w.open(t.Context(), time.Minute, nil, change...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// everything asks for all usage.
func everything() replay.Request {
	return replay.Request{Topic: events.TopicUsage, Effects: []string{"usage"}, From: replay.Unbounded(), To: replay.Unbounded(), MaxLag: time.Minute}
}

func (s *station) plan(t testing.TB, r replay.Request) *replay.Plan {
	t.Helper()
	p, err := s.kind.Plan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *station) create(t testing.TB, r replay.Request) *task.Task {
	t.Helper()
	p := s.plan(t, r)
	made, err := s.store.Create(t.Context(), task.New{Kind: task.Replay, Topic: p.Topic, Spec: p.Spec})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// run replays and returns the task as it is at the end.
func (s *station) run(t testing.TB, id string) *task.Task {
	t.Helper()
	return s.runWithin(t, id, enginetest.Patience)
}

func (s *station) runWithin(t testing.TB, id string, within time.Duration) *task.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	done, err := s.runner.Run(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// dry looks what is missing.
func (s *station) dry(t testing.TB, r replay.Request) (*replay.DryReport, map[string]bool) {
	t.Helper()
	named := map[string]bool{}
	report, err := s.kind.Dry(t.Context(), s.plan(t, r), func(e *replay.Event) error {
		named[e.Source+"\n"+e.ID] = true
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return report, named
}

// lossy is a table that says of some events that it holds them, and does not: so they never get there, nor into the totals.
type lossy struct {
	*clickhouse.Store
	lose func(identity uint64) bool

	mu   sync.Mutex
	lost map[string]bool
}

// Newest makes every event one that is looked up.
func (s *lossy) Newest(context.Context) (int64, error) { return math.MaxInt64, nil }

func (s *lossy) Find(ctx context.Context, b *clickhouse.Block, rows []int) ([]clickhouse.Match, error) {
	found, err := s.Store.Find(ctx, b, rows)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, row := range rows {
		if s.lose(b.Identity(row)) {
			k := b.Key(row)
			s.lost[k.Source+"\n"+k.ID] = true
			found = append(found, clickhouse.Match{Row: row, Same: true, Offset: -1})
		}
	}
	return found, err
}

// consume runs the usage consumer until stop is called. lose, if set, chooses the events that never reach the table; it returns which were lost.
func (w *world) consume(t testing.TB, lose func(uint64) bool) (stop func() map[string]bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	opened, err := clickhouse.Open(ctx, clickhouse.Config{Options: w.options(), InsertTimeout: insertTimeout})
	if err != nil {
		t.Fatal(err)
	}
	l := &lossy{Store: opened, lose: lose, lost: map[string]bool{}}
	var store consumers.UsageStore = opened
	if lose != nil {
		store = l
	}
	transport := &kafkago.Transport{}
	cfg := kafka.Config{
		Name: "usage", Brokers: []string{w.Brokers}, Transport: transport, Group: w.group(), Topics: []string{w.topic()},
		SessionTimeout: 6 * time.Second, RebalanceTimeout: 12 * time.Second, Drain: 5 * time.Second,
		BatchRows: cmp.Or(w.batchRows, 500), BatchInterval: 50 * time.Millisecond, CommitIdle: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	filter := int64(8 << 20)
	if w.registry != nil {
		cfg.Metrics = kafka.NewMetrics(w.registry, "usage")
	}
	if w.shipped {
		cfg.BatchRows, cfg.BatchInterval, cfg.CommitIdle, filter = 0, 0, 0, 0
	}
	group := kafka.NewGroup(cfg, consumers.NewUsage(store, consumers.UsageConfig{FilterBytes: filter, Group: w.group()}))
	ended := make(chan error, 1)
	go func() { ended <- group.Run(ctx) }()
	once := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the consumer ended: %v", err)
		}
		transport.CloseIdleConnections()
		_ = opened.Close()
	})
	t.Cleanup(once)
	return func() map[string]bool {
		once()
		return l.lost
	}
}

// awaitConsumed waits until the group has committed the whole log.
func (w *world) awaitConsumed(t testing.TB) {
	t.Helper()
	w.awaitConsumedWithin(t, enginetest.Patience)
}

func (w *world) awaitConsumedWithin(t testing.TB, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	consumed := func() bool {
		ends, err := kafka.Ends(ctx, w.client, w.topic())
		if err != nil {
			return false
		}
		positions, _, err := totals.ReadPositions(ctx, w.client, w.group(), w.topic())
		if err != nil {
			return false
		}
		for _, p := range positions {
			if r := ends[p.Partition]; p.Committed != r.To && r.To > 0 || p.PendingTo > p.Committed {
				return false
			}
		}
		return true
	}
	if err := enginetest.Eventually(ctx, consumed); err != nil {
		t.Fatal("the log was not consumed in time")
	}
}

// publish writes the next messages of a generator; limit 0: all.
func (w *world) publish(t testing.TB, g *model.Generator, limit int) {
	t.Helper()
	if _, err := model.Publish(t.Context(), g, model.Publishing{Client: w.client, Topic: w.topic(), Limit: limit}); err != nil {
		t.Fatal(err)
	}
}

func generator(t testing.TB, c model.Config) *model.Generator {
	t.Helper()
	if c.Start.IsZero() {
		c.Start = time.Now().Add(-6 * time.Hour)
	}
	g, err := model.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// matches compares rows and views with what the model expects.
func (w *world) matches(t testing.TB, want model.Expected, views bool) {
	t.Helper()
	db := chgo.OpenDB(w.options())
	defer func() { _ = db.Close() }()
	read := map[string]func() (model.Tables, error){"rows": func() (model.Tables, error) { return model.ReadRows(t.Context(), db) }}
	if views {
		read["views"] = func() (model.Tables, error) { return model.ReadViews(t.Context(), db) }
	}
	for what, get := range read {
		got, err := get()
		if err != nil {
			t.Fatal(err)
		}
		if d := model.Compare(got, want.Tables); len(d) > 0 {
			t.Errorf("%s:\n%s", what, model.Describe(d))
		}
	}
}

func (w *world) number(t testing.TB, query string, args ...any) int64 {
	t.Helper()
	var n int64
	if err := w.db.QueryRow(t.Context(), strings.Replace(query, "SELECT count()", "SELECT toInt64(count())", 1), args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// remove deletes rows by hand, past the totals, and returns how many.
func (w *world) remove(t testing.TB, where string) int64 {
	t.Helper()
	n := w.number(t, "SELECT count() FROM usage_tracking WHERE "+where)
	ctx := chgo.Context(t.Context(), chgo.WithSettings(chgo.Settings{"mutations_sync": 2}))
	if err := w.db.Exec(ctx, "ALTER TABLE usage_tracking DELETE WHERE "+where); err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
