package verify_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
	"tenantflow/internal/verify"
	"tenantflow/migrations"
	"tenantflow/sinks/clickhouse"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// insertTimeout is the tests' own: a second look comes after it, and copies count as quiet.
const insertTimeout = time.Second

// An installation is a topic with its dead letters, a migrated database and a consumer group, for one test.
type installation struct {
	topic, group string
	partitions   int
	client       *kafkago.Client
	options      *chgo.Options
	db           driver.Conn
}

func install(t testing.TB, partitions int) *installation {
	t.Helper()
	broker := enginetest.SharedKafka(t)
	in := &installation{partitions: partitions, topic: enginetest.NewTopic(t, partitions)}
	enginetest.CreateTopic(t, broker, events.DeadLetterTopic(in.topic), 2)
	in.group = in.topic + ".usage"
	in.client = enginetest.KafkaClient(t, broker.Addr())
	in.database(t)
	return in
}

// database gives the installation a migrated database.
func (in *installation) database(t testing.TB) {
	t.Helper()
	options, err := chgo.ParseDSN(enginetest.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	options.MaxOpenConns, options.MaxIdleConns = 32, 8
	in.options = options
	tables, err := migrations.OpenClickHouse(t.Context(), options, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tables.Close() }()
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if in.db, err = chgo.Open(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.db.Close() })
}

// publish writes the next messages of a generator; limit 0: all.
func (in *installation) publish(t testing.TB, g *model.Generator, limit int) {
	t.Helper()
	if _, err := model.Publish(t.Context(), g, model.Publishing{Client: in.client, Topic: in.topic, Limit: limit}); err != nil {
		t.Fatal(err)
	}
}

// consume runs the service on the topic until stop is called.
func (in *installation) consume(t testing.TB, batchRows int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	store, err := clickhouse.Open(ctx, clickhouse.Config{Options: in.options, InsertTimeout: insertTimeout * 3})
	if err != nil {
		t.Fatal(err)
	}
	transport := &kafkago.Transport{}
	group := kafka.NewGroup(kafka.Config{
		Name: "usage", Brokers: []string{in.client.Addr.String()}, Transport: transport,
		Group: in.group, Topics: []string{in.topic},
		SessionTimeout: 6 * time.Second, RebalanceTimeout: 12 * time.Second, Drain: 5 * time.Second,
		BatchRows: batchRows, BatchInterval: 100 * time.Millisecond, CommitIdle: 100 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}, consumers.NewUsage(store, consumers.UsageConfig{FilterBytes: 8 << 20}))
	return runGroup(ctx, t, cancel, group, func() {
		transport.CloseIdleConnections()
		_ = store.Close()
	})
}

// runGroup runs a consumer until stop is called, which cancels ctx and then closes what the consumer used.
func runGroup(ctx context.Context, t testing.TB, cancel context.CancelFunc, group *kafka.Group, closeAll func()) (stop func()) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- group.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the service ended: %v", err)
		}
		closeAll()
	})
	t.Cleanup(stop)
	return stop
}

// awaitConsumed waits until the group has committed the whole log and nothing is pending.
func (in *installation) awaitConsumed(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	consumed := func() bool {
		ids := make([]int, in.partitions)
		for i := range ids {
			ids[i] = i
		}
		res, err := in.client.OffsetFetch(ctx, &kafkago.OffsetFetchRequest{GroupID: in.group, Topics: map[string][]int{in.topic: ids}})
		if err != nil || len(res.Topics[in.topic]) != in.partitions {
			return false
		}
		for _, p := range res.Topics[in.topic] {
			log, err := kafka.Bounds(ctx, in.client, in.topic, p.Partition)
			_, pending := kafka.SplitMark(p.Metadata)
			if err != nil || pending != "" || p.CommittedOffset != log.To && !(p.CommittedOffset < 0 && log.To == 0) {
				return false
			}
		}
		return true
	}
	if err := enginetest.Eventually(ctx, consumed); err != nil {
		t.Fatalf("the log was not consumed within %s", enginetest.Patience)
	}
}

// consumed is an installation that has worked through the traffic of a config and stopped, with every row quiet.
func consumed(t testing.TB, partitions int, c model.Config) (*installation, *model.Generator) {
	t.Helper()
	in := install(t, partitions)
	if c.Start.IsZero() {
		c.Start = time.Now().Add(-6 * time.Hour)
	}
	g, err := model.New(c)
	if err != nil {
		t.Fatal(err)
	}
	in.publish(t, g, 0)
	stop := in.consume(t, 2000)
	in.awaitConsumed(t)
	stop()
	in.awaitQuiet(t)
	return in, g
}

// usual is traffic with something of everything.
func usual() model.Config {
	return model.Config{Seed: 1, Count: 5000, Companies: 20, UsersPerCompany: 5, Resends: 0.05, Conflicts: 0.004, Late: 0.05, Malformed: 0.01, Structured: 0.1}
}

// awaitQuiet waits until the deadline of every row has passed by a margin.
func (in *installation) awaitQuiet(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool {
		return in.number(t, "SELECT count() FROM usage_tracking WHERE _insert_by + INTERVAL 2500 MILLISECOND > now64(3)") == 0
	}); err != nil {
		t.Fatal(err)
	}
}

func (in *installation) verifier(t testing.TB, change ...func(*verify.Config)) *verify.Verifier {
	t.Helper()
	cfg := verify.Config{Client: in.client, ClickHouse: in.options, Topic: in.topic, Group: in.group, InsertTimeout: insertTimeout}
	for _, f := range change {
		f(&cfg)
	}
	v, err := verify.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func (in *installation) verify(t testing.TB, repair bool, change ...func(*verify.Config)) *verify.Report {
	t.Helper()
	report, err := in.verifier(t, change...).Run(t.Context(), repair)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (in *installation) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if err := in.db.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (in *installation) number(t testing.TB, query string, args ...any) int64 {
	t.Helper()
	var n int64
	if err := in.db.QueryRow(t.Context(), strings.Replace(query, "SELECT count()", "SELECT toInt64(count())", 1), args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// copyRow inserts a row again, with some columns replaced, past the constraint that the service's rows must pass.
func (in *installation) copyRow(t testing.TB, partition int, offset int64, replace string) {
	t.Helper()
	if replace != "" {
		replace += ", "
	}
	// Its time must be over soon, and not before it is stored: a busy machine needs more of it.
	for within := 300; ; within *= 2 {
		err := in.db.Exec(t.Context(), fmt.Sprintf("INSERT INTO usage_tracking SELECT * REPLACE (%s now64(3) + INTERVAL %d MILLISECOND AS _insert_by) FROM "+
			"(SELECT * FROM usage_tracking WHERE _partition = %d AND _offset = %d LIMIT 1)", replace, within, partition, offset))
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "in_time") || within > 10_000 {
			t.Fatal(err)
		}
	}
}

// double inserts rows again, as copyRow does.
func (in *installation) double(t testing.TB, where string) {
	t.Helper()
	for within := 2; ; within *= 2 {
		err := in.db.Exec(t.Context(), fmt.Sprintf("INSERT INTO usage_tracking SELECT * REPLACE (now64(3) + INTERVAL %d SECOND AS _insert_by) FROM usage_tracking WHERE %s", within, where))
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "in_time") || within > 60 {
			t.Fatal(err)
		}
	}
}

// aRow gives the place of a row that no other event repeats, the n-th.
func (in *installation) aRow(t testing.TB, n int) (partition int, offset int64) {
	t.Helper()
	var p uint16
	if err := in.db.QueryRow(t.Context(), "SELECT _partition, _offset FROM usage_tracking ORDER BY _partition, _offset LIMIT 1 OFFSET ?", n).Scan(&p, &offset); err != nil {
		t.Fatal(err)
	}
	return int(p), offset
}

// want checks the counts of a report's findings: all that are not named must be 0.
func want(t testing.TB, r *verify.Report, counts map[verify.Kind]int64) {
	t.Helper()
	for _, g := range r.Findings {
		if g.Count != counts[g.Kind] && !(g.Information && counts[g.Kind] == 0) {
			t.Errorf("%s: %d findings, want %d: %v", g.Kind, g.Count, counts[g.Kind], g.Samples[:min(3, len(g.Samples))])
		}
	}
	differences := int64(0)
	for k, n := range counts {
		if got := r.Findings.Count(k); got != n {
			t.Errorf("%s: %d findings, want %d", k, got, n)
		}
		if !k.Information() {
			differences += n
		}
	}
	if r.Differences() != differences {
		t.Errorf("%d differences, want %d", r.Differences(), differences)
	}
	for _, p := range r.Partitions {
		if sum := p.Rows + p.Duplicates + p.DeadLetters + p.Expired + p.NoEvent + p.Missing; sum != p.Judged {
			t.Errorf("partition %d: the parts sum to %d of %d offsets: %+v", p.Partition, sum, p.Judged, p)
		}
	}
}

// clean checks that a report has no difference, and compares its sums with what the model expects.
func clean(t testing.TB, r *verify.Report, expected model.Expected) {
	t.Helper()
	want(t, r, nil)
	s := r.Sum()
	letters := int64(0)
	for _, n := range expected.DeadLetters {
		letters += n
	}
	if s.Judged != expected.Messages || s.Rows != expected.Tables.Rows || s.Duplicates != expected.Duplicates || s.DeadLetters != letters {
		t.Errorf("%d offsets, %d rows, %d duplicates, %d dead letters; the model has %d, %d, %d, %d",
			s.Judged, s.Rows, s.Duplicates, s.DeadLetters, expected.Messages, expected.Tables.Rows, expected.Duplicates, letters)
	}
	keys := []int{len(expected.Tables.Hourly), len(expected.Tables.Daily), len(expected.Tables.Monthly)}
	for i, a := range r.Aggregates {
		if a.Keys != int64(keys[i]) || a.Busy != 0 {
			t.Errorf("%+v, want %d keys", a, keys[i])
		}
	}
	if len(r.Aggregates) != len(keys) {
		t.Errorf("%d aggregates compared", len(r.Aggregates))
	}
}

// recreate deletes a topic and creates it again, empty.
func (in *installation) recreate(t testing.TB, topic string, partitions int) {
	t.Helper()
	enginetest.RecreateTopic(t, enginetest.SharedKafka(t), in.client, topic, partitions)
}

// matchesModel compares rows and views with what the model expects.
func (in *installation) matchesModel(t testing.TB, g *model.Generator) {
	t.Helper()
	db := chgo.OpenDB(in.options)
	defer func() { _ = db.Close() }()
	for what, read := range map[string]func() (model.Tables, error){
		"rows":  func() (model.Tables, error) { return model.ReadRows(t.Context(), db) },
		"views": func() (model.Tables, error) { return model.ReadViews(t.Context(), db) },
	} {
		got, err := read()
		if err != nil {
			t.Fatal(err)
		}
		if d := model.Compare(got, g.Expected().Tables); len(d) > 0 {
			t.Errorf("%s:\n%s", what, model.Describe(d))
		}
	}
}

// clone is the same installation with a database of the test's own, so that one log serves many tests.
func (in *installation) clone(t testing.TB) *installation {
	t.Helper()
	from := in.options.Auth.Database
	c := *in
	c.database(t)
	for _, table := range []string{"usage_tracking", "usage_hourly_store", "usage_daily_store", "billing_monthly_store"} {
		c.exec(t, "ALTER TABLE "+table+" ATTACH PARTITION ALL FROM "+from+"."+table)
	}
	return &c
}
