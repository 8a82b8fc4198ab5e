package consumers_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/internal/trace"
	"tenantflow/sinks/postgres"
)

// A tenantFixture is one installation for one test of companies and subscriptions: topics under a prefix of its own and a
// database with all tables.
type tenantFixture struct {
	brokers    string
	prefix     string // of topics
	dsn        string
	partitions int
	client     *kafkago.Client
}

func newTenantFixture(t testing.TB, broker *engine.Kafka, dsn string) *tenantFixture {
	t.Helper()
	f := &tenantFixture{brokers: broker.Addr(), dsn: dsn, partitions: 3}
	if dsn == "" {
		f.dsn = postgrestest.New(t)
	}
	f.prefix = enginetest.NewTopicOn(t, broker, 1) + "."
	for _, topic := range events.Topics() {
		switch topic.Name {
		case events.TopicCompany, events.TopicSubscription:
			enginetest.CreateTopic(t, broker, f.prefix+topic.Name, f.partitions)
			enginetest.CreateTopic(t, broker, events.DeadLetterTopic(f.prefix+topic.Name), 1)
		case events.TopicCompanyResults, events.TopicSubscriptionResults, events.TopicCompanyConfig, events.TopicNotifications:
			enginetest.CreateTopic(t, broker, f.prefix+topic.Name, 1)
		}
	}
	transport := &kafkago.Transport{DialTimeout: enginetest.Patience}
	t.Cleanup(transport.CloseIdleConnections)
	f.client = &kafkago.Client{Addr: kafkago.TCP(f.brokers), Transport: transport, Timeout: enginetest.Patience}
	return f
}

// log is a topic and the group that reads it.
func (f *tenantFixture) log(topic string) *kafkatest.Log {
	return &kafkatest.Log{Brokers: f.brokers, Topic: f.prefix + topic, Group: f.prefix + topic + ".group", Partitions: f.partitions, Client: f.client}
}

// tenantService is how a test wants its service.
type tenantService struct {
	session   time.Duration
	dsn       string // default: the fixture's
	wait      time.Duration
	storeStep func(postgres.TenantStep)
	step      func(consumers.TenantStep)
	store     func(consumers.TenantStore) consumers.TenantStore
	noSweep   bool
	blocked   func(note string)
	health    *health.Tracker
	log       *slog.Logger
	tracer    *trace.Tracer
	rows      func(context.Context) (consumers.UsageRows, error) // where usage is looked up that is to be taken back; nil: it is not
	note      func(string)                                       // on those requests
	replayKey events.ReplayKey
}

// run is both consumers, until ctx ends.
func (c tenantService) run(ctx context.Context, f *tenantFixture) error {
	if c.session == 0 {
		c.session = 6 * time.Second
	}
	if c.dsn == "" {
		c.dsn = f.dsn
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
		if os.Getenv("TENANTFLOW_TEST_LOG") != "" {
			c.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
	}
	var opened *postgres.Store
	for {
		var err error
		if opened, err = postgres.Open(ctx, postgres.Config{DSN: c.dsn, Logger: c.log, Tracer: c.tracer}); err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil // stopped before it had begun
		}
	}
	defer opened.Close()
	decoder, err := events.NewDecoder(f.prefix)
	if err != nil {
		return err
	}
	tenants := opened.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()}), Wait: c.wait, Step: c.storeStep})
	var store consumers.TenantStore = tenants
	if c.store != nil {
		store = c.store(store)
	}
	config := consumers.TenantConfig{Store: store, Decoder: decoder, TopicPrefix: f.prefix, Step: c.step, Blocked: c.blocked, ReplayKey: c.replayKey}
	transport := &kafkago.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafkago.Client{Addr: kafkago.TCP(f.brokers), Transport: transport}
	companies := f.log(events.TopicCompany)
	config.Companies = &kafka.TopicReading{Client: client, Topic: companies.Topic, Group: companies.Group}
	results := kafka.NewResults(client).Traced(c.tracer)
	defer func() { _ = results.Close() }()
	group, ctx := errgroup.WithContext(ctx)
	if !c.noSweep {
		group.Go(func() error { return consumers.NewTenantSweeper(config, results, c.log).Run(ctx) })
	}
	if c.rows != nil {
		usage := f.log(events.TopicUsage)
		log := kafka.NewStoredLog(client, usage.Topic+".usage", usage.Topic)
		voids := consumers.NewVoids(consumers.VoidConfig{Tenants: config, Store: tenants, Rows: c.rows, Log: log, Note: c.note, Logger: c.log}, results)
		group.Go(func() error {
			defer log.Close()
			voids.Run(ctx)
			return nil
		})
	}
	consume := func(topic string, handler kafka.BatchHandler) {
		at := f.log(topic)
		group.Go(func() error {
			return kafka.NewGroup(kafka.Config{
				Name: topic, Brokers: strings.Split(f.brokers, ","), Transport: transport, Group: at.Group, Topics: []string{at.Topic},
				SessionTimeout: c.session, RebalanceTimeout: 2 * c.session, Drain: c.session - c.session/4,
				BatchRows: 50, BatchInterval: 5 * time.Millisecond, CommitIdle: 50 * time.Millisecond, Logger: c.log, Health: c.health, Tracer: c.tracer,
			}, handler).Run(ctx)
		})
	}
	consume(events.TopicCompany, consumers.NewCompany(config))
	consume(events.TopicSubscription, consumers.NewSubscription(config))
	return group.Wait()
}

func (f *tenantFixture) start(t testing.TB, c tenantService) (stop func() error) {
	t.Helper()
	return background(t, func(ctx context.Context) error { return c.run(ctx, f) })
}

// A tenantMessage is an event on its way to a topic, which is named without prefix.
type tenantMessage struct {
	Topic string
	Key   string
	Value []byte
	Head  []events.Header
	phase int // of a stream of the model
}

// send publishes messages in order, per key.
func (f *tenantFixture) send(t testing.TB, messages ...tenantMessage) {
	t.Helper()
	w := enginetest.Writer(f.client)
	w.Balancer, w.BatchTimeout = &kafkago.Hash{}, 5*time.Millisecond
	defer func() { _ = w.Close() }()
	out := make([]kafkago.Message, len(messages))
	for i, m := range messages {
		out[i] = kafkago.Message{Topic: f.prefix + m.Topic, Key: []byte(m.Key), Value: m.Value}
		for _, h := range m.Head {
			out[i].Headers = append(out[i].Headers, kafkago.Header{Key: h.Key, Value: h.Value})
		}
	}
	if err := w.WriteMessages(t.Context(), out...); err != nil {
		t.Fatal(err)
	}
}

// tenantEvent makes an event of a company; data is JSON without company_id.
func tenantEvent(id, eventType, company, data string, at time.Time) tenantMessage {
	topic, _ := events.TopicOf(eventType)
	text := fmt.Sprintf(`{"company_id":%q`, company)
	if data != "" {
		text += "," + data
	}
	value, head := (&events.Envelope{ID: id, Source: "/test", Type: eventType, Time: at, Data: []byte(text + "}")}).EncodeBinary()
	return tenantMessage{topic, company, value, head, 0}
}

// registration makes a company of one user, <company>-u1.
func registration(company string, at time.Time) tenantMessage {
	return tenantEvent(company+"-registered", events.TypeCompanyRegistered, company,
		fmt.Sprintf(`"name":"N","billing_email":"pay@%s.example","initial_user":{"user_id":"%s-u1","email":"u1@%s.example"}`, company, company, company), at)
}

// awaitConsumed waits until both consumers have had everything.
func (f *tenantFixture) awaitConsumed(t testing.TB) {
	t.Helper()
	f.log(events.TopicCompany).AwaitConsumed(t)
	f.log(events.TopicSubscription).AwaitConsumed(t)
}

func (f *tenantFixture) consumed(t testing.TB) bool {
	return f.log(events.TopicCompany).Consumed(t) && f.log(events.TopicSubscription).Consumed(t)
}

// openTables opens the tables with the patience of a test. Close the result.
func openTables(t testing.TB, dsn string) *postgres.Store {
	t.Helper()
	var store *postgres.Store
	enginetest.Await(t, "Postgres to answer", func() bool { // a connection has five seconds, which a busy machine may take
		var err error
		store, err = postgres.Open(t.Context(), postgres.Config{DSN: dsn, Timeout: enginetest.Patience})
		return err == nil
	})
	return store
}

// query returns rows as text, one a line.
func (f *tenantFixture) query(t testing.TB, sql string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), "SELECT r::text FROM ("+sql+") AS r")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return lines
}

func (f *tenantFixture) exec(t testing.TB, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// tenantTables is everything that is stored but for what differs from one time to the next: versions, arrival and publication.
var tenantTables = map[string]string{ //nolint:gochecknoglobals // a constant table
	"companies": "SELECT company_id, name, billing_email, currency, status, created_at, closed_at FROM companies",
	"configs":   "SELECT company_id, config FROM company_config",
	"users":     "SELECT user_id, company_id, email, subscription_status, created_at FROM user_directory",
	"subscriptions": `SELECT company_id, tier, status, period_start, period_end, period_months, price_minor, currency, pending_tier, pending_at, cancel_at_period_end, grace_until,
		renewal_until, next_period_start, next_period_end, next_renewal, payment_failed, expired_term, previous_tier, anchor_day, limits, effective_limits, benefits FROM subscriptions`,
	"overrides":    "SELECT company_id, limit_name, value, reason, set_at, expires_at FROM limit_overrides",
	"transactions": "SELECT transaction_id, company_id, transaction_type, old_tier, new_tier, amount_minor, currency, lines, period_start, period_end, payment_data, created_at FROM billing_transactions",
	"payments":     "SELECT payment_id, company_id, amount_minor, currency, paid_at, method, status, billing_period, transaction_id, period_start FROM payments",
	"audit":        "SELECT company_id, count(*), max(seq) FROM audit_log GROUP BY 1",
	"inbox":        "SELECT source, event_id, type, company_id, state FROM inbox",
}

// snapshot is everything that is stored, one line a row, sorted.
func (f *tenantFixture) snapshot(t testing.TB) []string {
	t.Helper()
	var all []string
	for name, sql := range tenantTables {
		for _, row := range f.query(t, sql) {
			all = append(all, name+" "+row)
		}
	}
	slices.Sort(all)
	return all
}

// A published result is what its reader sees of it, but for versions of configurations and the place in the audit log.
type published struct{ topic, eventType, key, data, causation string }

// results reads all results by id. The same id twice must be the same event, and each as its schema says.
func (f *tenantFixture) results(t testing.TB) map[string]published {
	t.Helper()
	out := map[string]published{}
	decoder, err := events.NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{events.TopicCompanyResults, events.TopicSubscriptionResults, events.TopicCompanyConfig, events.TopicNotifications} {
		f.log(topic).ReadAll(t, f.prefix+topic, func(r *events.Record) {
			if len(r.Value) == 0 {
				out["tombstone "+string(r.Key)] = published{topic: topic, key: string(r.Key)}
				return
			}
			record := kafka.CopyRecord(r)
			e, err := events.ParseEnvelope(&record)
			if err != nil {
				t.Fatalf("%s at offset %d: %v", topic, r.Offset, err)
			}
			if err := decoder.CheckData(e.Type, e.Data); err != nil {
				t.Errorf("%s %s is not as its schema says: %v", e.Type, e.ID, err)
			}
			one := published{topic, e.Type, string(r.Key), string(e.Data), e.CausationSource + "\n" + e.CausationID}
			if before, ok := out[e.ID]; ok && before != one {
				t.Errorf("two events with the id %s:\n%+v\n%+v", e.ID, before, one)
			}
			out[e.ID] = one
		})
	}
	return out
}

// awaitPublished waits until all that is done is published and noted, and nothing is set aside, or left to the sweeper. An event may be
// consumed before: it is set aside where its company's lock is held for 200 ms, as it may be by an event of the other topic.
func (f *tenantFixture) awaitPublished(t testing.TB) {
	t.Helper()
	enginetest.Await(t, "all results to be published", func() bool {
		// A company that waits for the lock of a process that was killed goes on when it is tried again.
		left := f.query(t, `SELECT count(*) FROM inbox WHERE state IN ('done', 'rejected') AND published_at IS NULL OR company_id IN (SELECT company_id FROM company_blocks)
			OR state = 'waiting' AND company_id IN (SELECT company_id FROM companies)`)
		return left[0] == "(0)"
	})
}

// differ lists up to ten lines that only one of two sorted lists has.
func differ(got, want []string) []string {
	count := map[string]int{}
	for _, line := range want {
		count[line]--
	}
	for _, line := range got {
		count[line]++
	}
	var out []string
	for line, n := range count {
		switch {
		case n > 0:
			out = append(out, "too many: "+line)
		case n < 0:
			out = append(out, "missing: "+line)
		}
	}
	slices.Sort(out)
	return out[:min(10, len(out))]
}
