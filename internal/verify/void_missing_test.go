package verify_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/internal/verify"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// voids decides requests to take usage back until the test ends.
func (y *tenancy) voids(t testing.TB, in *installation) {
	t.Helper()
	decoder, err := events.NewDecoder(y.prefix)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := clickhouse.Open(t.Context(), clickhouse.Config{Options: in.options})
	if err != nil {
		t.Fatal(err)
	}
	tenants := y.store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})})
	results, log := kafka.NewResults(y.client), kafka.NewStoredLog(y.client, in.group, in.topic)
	work := consumers.NewVoids(consumers.VoidConfig{
		Tenants: consumers.TenantConfig{TopicPrefix: y.prefix, Decoder: decoder, Store: tenants},
		Store:   tenants, Log: log, Logger: slog.New(slog.DiscardHandler),
		Rows: func(context.Context) (consumers.UsageRows, error) { return rows, nil },
	}, results)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		work.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		log.Close()
		_ = results.Close()
		_ = rows.Close()
	})
}

// tell publishes an event of the company acme.
func (y *tenancy) tell(t testing.TB, id, kind, data string) {
	t.Helper()
	value, headers := (&events.Envelope{ID: id, Source: "/tests", Type: kind, Time: time.Now(), Data: []byte(`{"company_id":"acme",` + data + `}`)}).EncodeBinary()
	m := kafkago.Message{Topic: y.prefix + events.TopicCompany, Key: []byte("acme"), Value: value}
	for _, h := range headers {
		m.Headers = append(m.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
	}
	y.send(t, m)
}

// Postgres says that usage is taken back, and ClickHouse still counts it.
func TestVoids_ThatAreLostAreFoundAndPublishedAgain(t *testing.T) {
	t.Parallel()
	in := install(t, 1)
	y := in.tenancy(t)
	broker := enginetest.SharedKafka(t)
	in.topic = y.prefix + events.TopicUsage
	in.group = in.topic + ".usage"
	enginetest.CreateTopic(t, broker, in.topic, 1)
	enginetest.CreateTopic(t, broker, events.DeadLetterTopic(in.topic), 1)
	in.consume(t, 100)
	y.apply(t, nil)
	y.voids(t, in)

	u := wrongUsages(3)
	in.send(t, u[0].recorded(), u[1].recorded(), u[2].recorded())
	y.tell(t, "c", events.TypeCompanyRegistered, `"name":"Acme","billing_email":"a@acme.example","initial_user":{"user_id":"u-0","email":"u@acme.example"}`)
	for _, one := range u[:2] {
		y.tell(t, "v-"+one.id, events.TypeUsageVoidRequested, fmt.Sprintf(`"user_id":%q,"usage_source":"/tests","usage_id":%q,"timestamp":%q,"reason":"wrong"`,
			one.user, one.id, one.at.Format(time.RFC3339Nano)))
	}
	stored := func(n int64) {
		t.Helper()
		enginetest.Await(t, fmt.Sprintf("%d voids to be stored", n), func() bool { return in.number(t, "SELECT count() FROM usage_tracking WHERE sign = -1") == n })
		y.await(t)
		in.awaitConsumed(t)
		in.awaitQuiet(t)
	}
	stored(2)
	r := in.verify(t, false, y.config)
	want(t, r, nil)
	if r.Results.Voids != 2 || r.Results.YoungVoids != 0 {
		t.Errorf("%d voids were looked for, and %d not judged", r.Results.Voids, r.Results.YoungVoids)
	}

	in.exec(t, "ALTER TABLE usage_tracking DELETE WHERE voids_id = 'w-0' SETTINGS mutations_sync = 2")
	want(t, in.verify(t, false, y.config), map[verify.Kind]int64{verify.MissingVoid: 1, verify.Missing: 1, verify.WrongTotal: 3})
	if r := in.verify(t, true, y.config); r.Repairs.Results != 1 || r.Results.YoungVoids != 1 || r.Findings.Count(verify.MissingVoid) != 0 {
		t.Errorf("repaired: %+v, %+v", r.Repairs, r.Results)
	}
	stored(2)
	want(t, in.verify(t, false, y.config), nil)

	// Without its usage there is nothing to take back.
	in.exec(t, "ALTER TABLE usage_tracking DELETE WHERE 'w-1' IN (event_id, voids_id) SETTINGS mutations_sync = 2")
	if r := in.verify(t, false, y.config); r.Findings.Count(verify.MissingVoid) != 0 || r.Results.Voids != 2 {
		t.Errorf("found %+v", r.Findings)
	}
}
