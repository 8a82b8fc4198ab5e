package verify_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/tier"
	"tenantflow/internal/verify"
	"tenantflow/sinks/postgres"
)

// A tenancy is the company side of an installation: topics under a prefix of its own and a database.
type tenancy struct {
	prefix string
	dsn    string
	store  *postgres.Store
	conn   *pgx.Conn
	client *kafkago.Client
}

func (in *installation) tenancy(t testing.TB) *tenancy {
	t.Helper()
	broker := enginetest.SharedKafka(t)
	y := &tenancy{prefix: in.topic + ".", dsn: postgrestest.New(t), client: in.client}
	for _, topic := range events.Topics() {
		switch topic.Name {
		case events.TopicCompany, events.TopicSubscription:
			enginetest.CreateTopic(t, broker, y.prefix+topic.Name, 3)
			enginetest.CreateTopic(t, broker, events.DeadLetterTopic(y.prefix+topic.Name), 1)
		case events.TopicCompanyResults, events.TopicSubscriptionResults, events.TopicCompanyConfig, events.TopicNotifications:
			enginetest.CreateTopic(t, broker, y.prefix+topic.Name, 2)
		}
	}
	var err error
	if y.store, err = postgres.Open(t.Context(), postgres.Config{DSN: y.dsn, Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(y.store.Close)
	if y.conn, err = pgx.Connect(t.Context(), y.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = y.conn.Close(context.Background()) })
	return y
}

func (y *tenancy) group(topic string) string {
	return y.prefix + "g." + strings.TrimSuffix(topic, ".events")
}

// config is how companies are verified.
func (y *tenancy) config(c *verify.Config) {
	c.Tenants, c.TopicPrefix, c.ConfigTopic = y.store, y.prefix, y.prefix+events.TopicCompanyConfig
	c.CompanyGroup, c.SubscriptionGroup = y.group(events.TopicCompany), y.group(events.TopicSubscription)
}

// apply runs both consumers and the sweeper until stop is called. Step may end the process's work at any place.
func (y *tenancy) apply(t testing.TB, step func(postgres.TenantStep)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	store, err := postgres.Open(ctx, postgres.Config{DSN: y.dsn})
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := events.NewDecoder(y.prefix)
	if err != nil {
		t.Fatal(err)
	}
	transport := &kafkago.Transport{}
	client := &kafkago.Client{Addr: y.client.Addr, Transport: transport}
	results := kafka.NewResults(client)
	key, err := store.ReplayKey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	config := consumers.TenantConfig{TopicPrefix: y.prefix, Decoder: decoder, ReplayKey: key,
		Store:     store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()}), Step: step}),
		Companies: &kafka.TopicReading{Client: client, Topic: y.prefix + events.TopicCompany, Group: y.group(events.TopicCompany)}}
	work, working := errgroup.WithContext(ctx)
	work.Go(func() error { return consumers.NewTenantSweeper(config, results, log).Run(working) })
	consume := func(topic string, handler kafka.BatchHandler) {
		work.Go(func() error {
			return kafka.NewGroup(kafka.Config{
				Name: topic, Brokers: []string{y.client.Addr.String()}, Transport: transport, Group: y.group(topic), Topics: []string{y.prefix + topic},
				SessionTimeout: 6 * time.Second, RebalanceTimeout: 12 * time.Second, Drain: 4 * time.Second,
				BatchRows: 50, BatchInterval: 5 * time.Millisecond, CommitIdle: 50 * time.Millisecond, Logger: log,
			}, handler).Run(working)
		})
	}
	consume(events.TopicCompany, consumers.NewCompany(config))
	consume(events.TopicSubscription, consumers.NewSubscription(config))
	ended := make(chan error, 1)
	go func() { ended <- work.Wait() }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the service ended: %v", err)
		}
		_ = results.Close()
		transport.CloseIdleConnections()
		store.Close()
	}
	t.Cleanup(stop)
	return stop
}

// produce publishes a stream of the model, phase by phase, and waits each time until it is done.
func (y *tenancy) produce(t testing.TB, c tenantmodel.Config) {
	t.Helper()
	for i, phase := range y.phases(t, c) {
		if i > 0 {
			y.await(t)
		}
		y.send(t, phase...)
	}
}

// phases are the messages of a stream of the model.
func (y *tenancy) phases(t testing.TB, c tenantmodel.Config) (phases [][]kafkago.Message) {
	t.Helper()
	c.Now = time.Now()
	g, err := tenantmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	phase := -1
	for m, ok := g.Next(); ok; m, ok = g.Next() {
		if m.Phase > phase {
			phases, phase = append(phases, nil), m.Phase
		}
		one := kafkago.Message{Topic: y.prefix + m.Topic, Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			one.Headers = append(one.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
		}
		phases[len(phases)-1] = append(phases[len(phases)-1], one)
	}
	return phases
}

func (y *tenancy) send(t testing.TB, messages ...kafkago.Message) {
	t.Helper()
	w := enginetest.Writer(y.client)
	w.Balancer, w.BatchTimeout = &kafkago.Hash{}, 5*time.Millisecond
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}

// await waits until both consumers have had everything, and all of it is published.
func (y *tenancy) await(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool {
		for _, topic := range []string{events.TopicCompany, events.TopicSubscription} {
			ends, err := kafka.Ends(ctx, y.client, y.prefix+topic)
			if err != nil {
				return false
			}
			unread, err := kafka.Unread(ctx, y.client, y.group(topic), y.prefix+topic, ends)
			if err != nil {
				return false
			}
			for _, n := range unread {
				if n > 0 {
					return false
				}
			}
		}
		return y.number(t, "SELECT count(*) FROM inbox WHERE state IN ('done', 'rejected') AND published_at IS NULL OR company_id IN (SELECT company_id FROM company_blocks)") == 0
	}); err != nil {
		t.Fatalf("companies and subscriptions are not consumed within %s", enginetest.Patience)
	}
}

func (y *tenancy) number(t testing.TB, sql string, args ...any) (n int64) {
	t.Helper()
	if err := y.conn.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// exec changes the tables by hand, past all triggers. Exactly one row must change each time, unless it says nothing of rows.
func (y *tenancy) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	tx, err := y.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "SET LOCAL session_replication_role = replica"); err != nil {
		t.Fatal(err)
	}
	tag, err := tx.Exec(t.Context(), sql, args...)
	if err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("%s: %d rows, %v", sql, tag.RowsAffected(), err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Everything that the model makes of companies and subscriptions, judged by the whole of verify.
func TestTenants_HealthyTrafficHasNoFinding(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	y := in.tenancy(t)
	y.apply(t, nil)
	y.produce(t, tenantmodel.Config{Seed: 11, Companies: 40, Events: 2500, Conflicts: 0.02, Lapsed: 0.3, Unknown: 0, Held: true, Prefix: in.topic[len(in.topic)-8:] + "-"})
	y.await(t)
	r := in.verify(t, false, y.config)
	want(t, r, nil)
	if r.Books.Companies < 40 || r.Books.Transactions < 50 || r.Results.Looked < 1000 || r.Inboxes[1].InInbox < 500 || r.Inboxes[1].DeadLetters == 0 {
		t.Errorf("little was looked at: %+v %+v %+v", r.Books, r.Results, r.Inboxes)
	}
	// In many passes.
	want(t, in.verify(t, false, y.config, func(c *verify.Config) { c.Results = 100 }), nil)
}
