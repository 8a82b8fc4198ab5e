package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// A voidFixture is an installation in which usage is stored and can be taken back.
type voidFixture struct {
	*tenantFixture
	usage   *fixture
	company string
	now     time.Time // of its registration
}

func newVoidFixture(t testing.TB, broker *engine.Kafka) *voidFixture {
	t.Helper()
	f := &voidFixture{tenantFixture: newTenantFixture(t, broker, ""), company: unique(), now: time.Now().Add(-time.Hour).UTC().Truncate(time.Second)}
	topic := f.prefix + events.TopicUsage
	enginetest.CreateTopic(t, broker, topic, f.partitions, kafkago.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"})
	enginetest.CreateTopic(t, broker, events.DeadLetterTopic(topic), 1)
	f.usage = &fixture{Log: kafkatest.Log{Brokers: f.brokers, Topic: topic, Group: topic + ".usage", Partitions: f.partitions, Client: f.client}, dsn: enginetest.NewDatabase(t)}
	migrate(t, f.usage.dsn)
	f.usage.db = open(t, f.usage.dsn)
	f.usage.sql = chgo.OpenDB(options(t, f.usage.dsn))
	t.Cleanup(func() { _ = f.usage.sql.Close() })
	return f
}

// rows opens the usage of the fixture until the test ends.
func (f *voidFixture) rows(t testing.TB) func(context.Context) (consumers.UsageRows, error) {
	return func(ctx context.Context) (consumers.UsageRows, error) {
		store, err := clickhouse.Open(ctx, clickhouse.Config{Options: options(t, f.usage.dsn)})
		if err == nil {
			t.Cleanup(func() { _ = store.Close() })
		}
		return store, err
	}
}

// rowsOf opens usage on a server until the process ends; nil for none.
func rowsOf(dsn string) func(context.Context) (consumers.UsageRows, error) {
	if dsn == "" {
		return nil
	}
	return func(ctx context.Context) (consumers.UsageRows, error) {
		o, err := chgo.ParseDSN(dsn)
		if err != nil {
			return nil, err
		}
		return clickhouse.Open(ctx, clickhouse.Config{Options: o})
	}
}

// use publishes usage of a key. Its identity is /gateway and id, its time the registration's and n seconds.
func (f *voidFixture) use(t testing.TB, id, key string, n int) {
	t.Helper()
	at := f.now.Add(time.Duration(n) * time.Second)
	value, head := (&events.Envelope{ID: id, Source: "/gateway", Type: events.TypeUsageRecorded, Time: at, Data: fmt.Appendf(nil,
		`{"company_id":%q,"user_id":"%s-u1","subscription_tier":"free","service_name":"s","api_endpoint":"/e","data_points_consumed":%d,"processing_time_ms":1.25,"revenue_attributed":"0.5"}`,
		f.company, f.company, n)}).EncodeBinary()
	f.send(t, tenantMessage{events.TopicUsage, key, value, head, 0})
}

// ask makes a request to take that usage back.
func (f *voidFixture) ask(request, id string, n int) tenantMessage {
	return tenantEvent(request, events.TypeUsageVoidRequested, f.company, fmt.Sprintf(`"user_id":"%s-u1","usage_source":"/gateway","usage_id":%q,"timestamp":%q,"reason":"wrong"`,
		f.company, id, f.now.Add(time.Duration(n)*time.Second).Format(time.RFC3339)), time.Now())
}

// answers are the results of requests, by request: voided, or the code of a refusal.
func (f *voidFixture) answers(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for id, r := range f.results(t) {
		_, request, _ := strings.Cut(r.causation, "\n")
		switch {
		case r.eventType == events.TypeCompanyUsageVoided:
			all[request] = "voided"
		case r.eventType == events.TypeCompanyRejected:
			_, code, _ := strings.Cut(r.data, `"code": "`)
			code, _, _ = strings.Cut(code, `"`)
			if code == "" {
				t.Errorf("%s has no code: %s", id, r.data)
			}
			all[request] = code
		}
	}
	return all
}

func (f *voidFixture) awaitAnswers(t testing.TB, want map[string]string) {
	t.Helper()
	var got map[string]string
	defer func() {
		if t.Failed() {
			t.Logf("answers %v, want %v; waiting: %v", got, want, f.query(t, "SELECT event_id, tries, why FROM void_requests"))
		}
	}()
	enginetest.Await(t, "the answers", func() bool {
		got = f.answers(t)
		for request, answer := range want {
			if got[request] != answer {
				return false
			}
		}
		return true
	})
	if len(got) != len(want) {
		t.Errorf("answers %v, want %v", got, want)
	}
}

// readUsage reads all events of usage.events.
func (f *voidFixture) readUsage(t testing.TB, each func(*events.Record, *events.Envelope)) {
	t.Helper()
	for id := range f.partitions {
		if err := kafka.ReadLog(t.Context(), f.client, f.usage.Topic, id, kafka.Range{To: 1 << 40}, func(r *events.Record) error {
			record := kafka.CopyRecord(r)
			e, err := events.ParseEnvelope(&record)
			if err == nil {
				each(&record, e)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// A voidRecord is a void in the log.
type voidRecord struct {
	partition      int
	key, id, cause string
	data           string
	copies         int
}

// voids reads the voids in the log, by the usage that they take back. Copies of one are the same.
func (f *voidFixture) voids(t testing.TB) map[string]voidRecord {
	t.Helper()
	all := map[string]voidRecord{}
	f.readUsage(t, func(record *events.Record, e *events.Envelope) {
		if e.Type != events.TypeUsageVoided {
			return
		}
		var u events.Usage
		if err := events.NewUsageDecoder(events.UsageLimits{}).Decode(record, record.Time, &u); err != nil {
			t.Errorf("a void that no consumer takes: %v", err)
			return
		}
		one := voidRecord{record.Partition, string(record.Key), e.ID, e.CausationID, string(e.Data), 1}
		if before, there := all[string(u.Voids.ID)]; there {
			one.copies += before.copies
			if before.copies = one.copies; before != one {
				t.Errorf("two voids of one usage differ:\n%+v\n%+v", before, one)
			}
		}
		all[string(u.Voids.ID)] = one
	})
	return all
}

// partitionOf is the partition of a usage, and the time of its record.
func (f *voidFixture) partitionOf(t testing.TB, id string) (partition int, at time.Time) {
	t.Helper()
	found := 0
	f.readUsage(t, func(record *events.Record, e *events.Envelope) {
		if e.ID == id && e.Source == "/gateway" {
			partition, at = record.Partition, record.Time
			found++
		}
	})
	if found == 0 {
		t.Fatalf("no usage %s", id)
	}
	return partition, at
}

func (f *voidFixture) waiting(t testing.TB) string {
	t.Helper()
	return f.query(t, "SELECT count(*) FROM void_requests")[0]
}

// A request comes before its usage is stored: it waits, and nothing else of the company does. Then the void goes to the partition of the usage.
func TestVoidRequest_WaitsUntilItsUsageIsStored(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newVoidFixture(t, broker)
		f.start(t, tenantService{rows: f.rows(t)})
		for n := range 6 {
			f.use(t, fmt.Sprint("e-", n), fmt.Sprint("key-", n), n)
		}
		f.send(t, registration(f.company, f.now))
		want := map[string]string{}
		for n := range 6 {
			request := fmt.Sprint("r-", n)
			f.send(t, f.ask(request, fmt.Sprint("e-", n), n))
			want[request] = "voided"
		}
		f.send(t, f.ask("r-none", "none", 0), tenantEvent("config", events.TypeConfigUpdated, f.company, `"config":{"theme":"dark"}`, time.Now()))
		want["r-none"] = "unknown_usage"
		enginetest.Await(t, "the company to go on", func() bool {
			return f.query(t, "SELECT count(*) FROM inbox WHERE event_id = 'config' AND state = 'done'")[0] == "(1)"
		})
		enginetest.Await(t, "all requests to be looked up in vain", func() bool { return f.query(t, "SELECT count(*) FROM void_requests WHERE tries > 1")[0] == "(7)" })
		if got := f.answers(t); len(got) > 0 {
			t.Fatalf("answers before usage is stored: %v", got)
		}
		f.usage.start(t, consumer{})
		f.awaitAnswers(t, want)
		f.awaitPublished(t)
		voids := f.voids(t)
		for n := range 6 {
			id := fmt.Sprint("e-", n)
			partition, at := f.partitionOf(t, id)
			v := voids[id]
			if v.partition != partition || v.key != fmt.Sprint("key-", n) || v.cause != fmt.Sprint("r-", n) ||
				v.id != events.VoidID("/gateway", id, f.now.Add(time.Duration(n)*time.Second)) ||
				!strings.Contains(v.data, fmt.Sprintf(`"voids_recorded_at": %q`, at.UTC().Format("2006-01-02T15:04:05.000Z"))) ||
				!strings.Contains(v.data, fmt.Sprintf(`"data_points_consumed": %d`, n)) || !strings.Contains(v.data, `"revenue_attributed": "0.500000"`) {
				t.Errorf("the void of %s, which is in partition %d since %s, is %+v", id, partition, at, v)
			}
		}
		if len(voids) != 6 {
			t.Errorf("%d voids", len(voids))
		}
		f.checkAudit(t)
	})
}

// Usage that is published behind the request does not keep it from being refused.
func TestVoidRequest_UnknownUsageIsRefusedOnceStored(t *testing.T) {
	t.Parallel()
	f := newVoidFixture(t, enginetest.SharedKafka(t))
	f.use(t, "before", "a", 1)
	f.send(t, registration(f.company, f.now), f.ask("r-1", "none", 1), f.ask("r-2", "before", 2)) // another time
	f.start(t, tenantService{rows: f.rows(t)})
	enginetest.Await(t, "the requests to be looked up in vain", func() bool { return f.query(t, "SELECT count(*) FROM void_requests WHERE tries > 1")[0] == "(2)" })
	if got := f.answers(t); len(got) > 0 {
		t.Fatalf("answers before usage is stored: %v", got)
	}
	f.usage.start(t, consumer{})
	f.awaitAnswers(t, map[string]string{"r-1": "unknown_usage", "r-2": "unknown_usage"})
}

// Twice, late, and for a company that comes later: each has one answer.
func TestVoidRequest_EachRequestHasOneAnswer(t *testing.T) {
	t.Parallel()
	f := newVoidFixture(t, enginetest.SharedKafka(t))
	f.use(t, "e-1", "a", 1)
	f.send(t, f.ask("r-1", "e-1", 1)) // before the registration
	f.usage.start(t, consumer{})
	f.usage.AwaitConsumed(t)
	f.start(t, tenantService{rows: f.rows(t)})
	f.send(t, registration(f.company, f.now), f.ask("r-2", "e-1", 1), f.ask("r-late", "e-1", -36*24*3600), f.ask("r-1", "e-1", 1))
	want := map[string]string{"r-1": "voided", "r-2": "already_voided", "r-late": "void_too_late"}
	f.awaitAnswers(t, want)
	f.send(t, f.ask("r-3", "e-1", 1))
	want["r-3"] = "already_voided"
	f.awaitAnswers(t, want)
	if voids := f.voids(t); len(voids) != 1 || voids["e-1"].cause != "r-1" {
		t.Errorf("voids %+v", voids)
	}
}

// ClickHouse is away: requests wait and readiness says so; everything else goes on, and they are decided when it is back.
func TestVoidRequest_ClickHouseAwayHoldsUpNothingElse(t *testing.T) {
	t.Parallel()
	f := newVoidFixture(t, enginetest.SharedKafka(t))
	f.use(t, "e-1", "a", 1)
	f.usage.start(t, consumer{})
	f.usage.AwaitConsumed(t)
	var back atomic.Bool
	var note atomic.Pointer[string]
	rows := f.rows(t)
	f.start(t, tenantService{
		rows: func(ctx context.Context) (consumers.UsageRows, error) {
			if !back.Load() {
				return nil, errors.New("ClickHouse is away")
			}
			return rows(ctx)
		},
		note: func(s string) { note.Store(&s) },
	})
	other := unique()
	f.send(t, registration(f.company, f.now), f.ask("r-1", "e-1", 1), f.ask("r-2", "none", 1),
		tenantEvent("config", events.TypeConfigUpdated, f.company, `"config":{"theme":"dark"}`, time.Now()), registration(other, f.now))
	f.awaitConsumed(t)
	f.awaitPublished(t)
	if got := f.query(t, "SELECT count(*) FROM inbox WHERE state = 'done'"); got[0] != "(3)" || f.waiting(t) != "(2)" {
		t.Errorf("%s events are done, %s requests wait", got[0], f.waiting(t))
	}
	enginetest.Await(t, "the note", func() bool {
		n := note.Load()
		return n != nil && strings.HasPrefix(*n, "2 requests to take usage back wait") && strings.Contains(*n, "ClickHouse is away")
	})
	back.Store(true)
	f.awaitAnswers(t, map[string]string{"r-1": "voided", "r-2": "unknown_usage"})
	enginetest.Await(t, "the note to go", func() bool { return *note.Load() == "" })
}

func TestVoidRequest_KillAtAnyStepChangesNothing(t *testing.T) {
	t.Parallel()
	steps := []string{string(consumers.VoidClaimed), string(consumers.VoidLooked), string(postgres.TenantDecided), string(postgres.TenantWritten),
		string(postgres.TenantCommitted), string(consumers.TenantApplied), string(consumers.TenantPublished), string(consumers.TenantMarked)}
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			broker := enginetest.SharedKafka
			if i%2 == 1 {
				broker = enginetest.SharedApacheKafka
			}
			f := newVoidFixture(t, broker(t))
			f.usage.start(t, consumer{session: undisturbed})
			want := map[string]string{}
			for n := range 4 {
				f.use(t, fmt.Sprint("e-", n), fmt.Sprint("key-", n), n)
			}
			f.send(t, registration(f.company, f.now))
			for n := range 4 {
				id := fmt.Sprint("e-", n)
				f.send(t, f.ask("first-"+id, id, n), f.ask("second-"+id, id, n))
				want["first-"+id], want["second-"+id] = "voided", "already_voided"
			}
			f.send(t, f.ask("none", "none", 1))
			want["none"] = "unknown_usage"
			f.usage.AwaitConsumed(t)
			killed := 0
			for _, nth := range []int32{1, 2, 4} {
				task := tenantCrash{f.brokers, f.prefix, f.dsn, f.partitions, step, nth, f.usage.dsn}
				done := func() bool { return f.consumed(t) && f.waiting(t) == "(0)" && len(f.answers(t)) == len(want) }
				if enginetest.StartChild(t, tenantChildEnv, task).UntilKilled(t, step, done) {
					killed++
				}
			}
			if killed == 0 {
				t.Errorf("no child came to %s", step)
			}
			f.start(t, tenantService{session: crashSession, rows: f.rows(t)})
			f.awaitConsumed(t)
			f.awaitAnswers(t, want)
			f.awaitPublished(t)
			if voids := f.voids(t); len(voids) != 4 {
				t.Errorf("voids %+v", voids)
			}
			if got := f.query(t, "SELECT count(*), count(*) FILTER (WHERE request_id LIKE 'first-%') FROM usage_voids"); got[0] != "(4,4)" || f.waiting(t) != "(0)" {
				t.Errorf("recorded %s, %s wait", got[0], f.waiting(t))
			}
			f.checkAudit(t)
		})
	}
}

// Several processes, and requests for the same usage at the same time: the log says which one is the first.
func TestVoidRequest_SeveralProcessesDecideAsTheLogSays(t *testing.T) {
	t.Parallel()
	f := newVoidFixture(t, enginetest.SharedKafka(t))
	f.usage.start(t, consumer{session: undisturbed})
	for range 2 {
		f.start(t, tenantService{rows: f.rows(t)})
	}
	f.send(t, registration(f.company, f.now))
	const usages = 20
	want := map[string]string{}
	for n := range usages {
		id := fmt.Sprint("e-", n)
		f.use(t, id, fmt.Sprint("key-", n%5), n)
		f.send(t, f.ask("1-"+id, id, n), f.ask("2-"+id, id, n), f.ask("3-"+id, id, n))
		want["1-"+id], want["2-"+id], want["3-"+id] = "voided", "already_voided", "already_voided"
	}
	f.awaitAnswers(t, want)
	f.awaitPublished(t)
	if voids := f.voids(t); len(voids) != usages {
		t.Errorf("%d voids", len(voids))
	}
	f.checkAudit(t)
}
