package consumers_test

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tenantmodel"
)

// tenantStream is a stream of the model, for companies of the test's own.
func tenantStream(t testing.TB, c tenantmodel.Config) (*tenantmodel.Generator, []tenantMessage) {
	t.Helper()
	if c.Prefix == "" {
		c.Prefix = unique() + "-"
	}
	c.Now = time.Now()
	g, err := tenantmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	var all []tenantMessage
	for m, ok := g.Next(); ok; m, ok = g.Next() {
		all = append(all, tenantMessage{m.Topic, string(m.Key), m.Value, m.Headers, m.Phase})
	}
	return g, all
}

// produce publishes a whole stream of the model.
func (f *tenantFixture) produce(t testing.TB, c tenantmodel.Config) *tenantmodel.Generator {
	t.Helper()
	g, messages := tenantStream(t, c)
	f.send(t, messages...)
	return g
}

// judge waits until everything is done, and compares tables and results with what the model says.
func (f *tenantFixture) judge(t testing.TB, g *tenantmodel.Generator) {
	t.Helper()
	f.awaitConsumed(t)
	f.awaitPublished(t)
	if d := g.Expected().Compare(f.observe(t)); len(d) > 0 {
		t.Errorf("%d differences:\n%s", len(d), strings.Join(d[:min(10, len(d))], "\n"))
	}
	f.checkAudit(t)
}

// observe reads what the model judges out of the tables and topics.
func (f *tenantFixture) observe(t testing.TB) *tenantmodel.World {
	t.Helper()
	w := tenantmodel.NewWorld()
	observe(t, f, w.Companies, "SELECT company_id AS id, status, currency, billing_email FROM companies")
	observe(t, f, w.Users, "SELECT user_id AS id, company_id, email, subscription_status AS status FROM user_directory")
	observe(t, f, w.Subscriptions, `SELECT company_id AS id, tier, status, period_start, period_end, period_months, price_minor, currency, coalesce(pending_tier, '') AS pending_tier,
		cancel_at_period_end, coalesce(pending_at, '0001-01-01 00:00+00') AS pending_at, coalesce(grace_until, '0001-01-01 00:00+00') AS grace_until,
		coalesce(renewal_until, '0001-01-01 00:00+00') AS renewal_until, coalesce(next_period_start, '0001-01-01 00:00+00') AS next_period_start,
		coalesce(next_period_end, '0001-01-01 00:00+00') AS next_period_end, coalesce(previous_tier, '') AS previous_tier FROM subscriptions`)
	observe(t, f, w.Overrides, `SELECT company_id || ' ' || limit_name AS id, jsonb_build_object('value', value, 'reason', reason, 'set_at', set_at,
		'expires_at', coalesce(expires_at, '0001-01-01 00:00+00')) AS value FROM limit_overrides`)
	observe(t, f, w.Configs, "SELECT company_id AS id, config AS value FROM company_config")
	observe(t, f, w.Transactions, `SELECT transaction_id AS id, company_id, transaction_type, old_tier, new_tier, amount_minor, currency,
		(SELECT coalesce(jsonb_agg(l -> 'amount_minor' ORDER BY n), '[]') FROM jsonb_array_elements(lines) WITH ORDINALITY AS l (l, n)) AS lines,
		period_start, period_end, coalesce(payment_data ->> 'payment_id', '') AS payment_id FROM billing_transactions`)
	observe(t, f, w.Payments, `SELECT payment_id AS id, company_id, status, coalesce(amount_minor, 0) AS amount_minor, coalesce(currency, '') AS currency,
		coalesce(transaction_id, '') AS transaction_id, coalesce(period_start, '0001-01-01 00:00+00') AS period_start FROM payments`)
	inbox := map[string]string{}
	observe(t, f, inbox, "SELECT source || ' ' || event_id AS id, state AS value FROM inbox")
	for text, state := range inbox {
		var id tenantmodel.Identity
		if err := id.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		w.Inbox[id] = state
	}
	for id, p := range f.results(t) {
		if p.eventType == "" {
			continue
		}
		r := tenantmodel.Result{Topic: p.topic, Type: p.eventType, CompanyID: p.key}
		if err := json.Unmarshal([]byte(p.data), &r.Data); err != nil {
			t.Fatal(err)
		}
		w.Results[id] = r
	}
	for _, topic := range []string{events.TopicCompany, events.TopicSubscription} {
		for reason, n := range f.log(topic).Letters(t) {
			w.DeadLetters[string(reason)] += int(n)
		}
	}
	return w
}

// observe reads rows into a map: each row as the JSON of a value, or its column value if it has one; the column id is the key.
func observe[V any](t testing.TB, f *tenantFixture, into map[string]V, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	rows, err := conn.Query(t.Context(), "SELECT j ->> 'id', coalesce(j -> 'value', j) FROM (SELECT to_jsonb(r) AS j FROM ("+sql+") AS r) AS x")
	if err != nil {
		t.Fatal(err)
	}
	var id string
	var text []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &text}, func() error {
		var v V
		if err := json.Unmarshal(text, &v); err != nil {
			return err
		}
		into[id] = v
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestCompaniesAndSubscriptionsAreWhatTheModelSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]tenantmodel.Config{
		"at once":   {Seed: 1, Companies: 20, Events: 500, Rejected: 0.3, Conflicts: 0.03, Lapsed: 0.3, Held: true},
		"in phases": {Seed: 2, Companies: 20, Events: 600, Phases: 4, Rejected: 0.2, Lapsed: 0.2},
		"unknown":   {Seed: 3, Companies: 4, Events: 40, Unknown: 4},
		"due soon":  {Seed: 4, Companies: 12, Events: 150, Lapsed: 1, Soon: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newTenantFixture(t, enginetest.SharedKafka(t), "")
			service := tenantService{}
			if c.Unknown > 0 {
				service.wait = 5 * time.Second // for companies that never come
			}
			g, messages := tenantStream(t, c)
			f.start(t, service)
			for phase := range max(1, c.Phases) {
				if phase > 0 {
					f.awaitResults(t, g.ResultsThrough(phase-1))
				}
				var own []tenantMessage
				for _, m := range messages {
					if m.phase == phase {
						own = append(own, m)
					}
				}
				f.send(t, own...)
			}
			f.awaitResults(t, g.Expected().Results)
			f.judge(t, g)
		})
	}
}

// awaitResults waits until all of some results are published.
func (f *tenantFixture) awaitResults(t testing.TB, want map[string]tenantmodel.Result) {
	t.Helper()
	missing := maps.Clone(want)
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond) // each look reads and checks everything there is
	defer tick.Stop()
	var err error
	for err == nil {
		for id := range f.results(t) {
			delete(missing, id)
		}
		if len(missing) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	for id, r := range missing {
		t.Errorf("missing: %s %+v", id, r)
	}
	t.Fatalf("%d results are missing", len(missing))
}
