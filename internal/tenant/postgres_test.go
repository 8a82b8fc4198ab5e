package tenant_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// The same histories on the real ledger: what Postgres holds in the end is what the model says.
func TestBooks_OfPostgresAreThoseOfTheLog(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	rules := tenant.New(tenant.Config{Catalogue: tier.Default()})
	tenants := store.Tenants(postgres.TenantsConfig{Rules: rules})
	seed := int(time.Now().UnixNano() % 1e6)
	t.Logf("seed %d", seed)
	for i := range 12 {
		id := fmt.Sprintf("h%d-%d", seed, i)
		h := rapid.Custom(func(t *rapid.T) *history { return writeHistory(t, rules, id) }).Example(seed + i)
		log := slices.Concat(h.company, h.subscription)
		if i%3 == 0 { // everything waits for the registration
			log = slices.Concat(h.subscription, h.company)
		}
		results := map[string]tenantmodel.Result{}
		for n, e := range log {
			c := cause(t, e)
			done, err := tenants.Apply(t.Context(), c.Event, postgres.Place{Partition: 1, Offset: int64(n), Appended: e.Appended})
			if err != nil {
				t.Fatalf("%s %s: %v", c.Event.Type, c.Event.Data, err)
			}
			for _, one := range done {
				for _, r := range one.Results {
					if r.Event == nil || r.Topic == events.TopicSubscription {
						continue
					}
					result := tenantmodel.Result{Topic: r.Topic, Type: r.Event.Type, CompanyID: r.Key}
					if err := json.Unmarshal(r.Event.Data, &result.Data); err != nil {
						t.Fatal(err)
					}
					results[r.Event.ID] = result
				}
			}
			if err := tenants.MarkPublished(t.Context(), done); err != nil {
				t.Fatal(err)
			}
		}
		found := observed(t, dsn, id)
		found.Results = results
		model := judged(h)
		if model.Companies[id].Status != tenant.Purged {
			checkLimits(t, dsn, id)
		}
		if model.Companies[id].Status == tenant.Purged {
			model, found = books(model), books(found)
		}
		if d := unlimited(model).Compare(unlimited(found)); len(d) > 0 {
			t.Fatalf("history %d: %d differences:\n%s\n%s", i, len(d), strings.Join(d[:min(8, len(d))], "\n"), h)
		}
	}
	if faults, err := store.VerifyAudit(t.Context(), ""); err != nil || len(faults) > 0 {
		t.Errorf("audit: %v, %v", faults, err)
	}
}

// checkLimits holds the limits that Postgres says hold, in the subscription and for the company's users, against those of the rules.
func checkLimits(t *testing.T, dsn, company string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var limits, effective, users tier.Limits
	var overrides tenant.Overrides
	if err := conn.QueryRow(t.Context(), fmt.Sprintf(`SELECT limits, effective_limits, coalesce((SELECT jsonb_agg(o) FROM limit_overrides AS o WHERE company_id = $1), '[]'),
		coalesce((SELECT subscription_limits FROM %s.users LIMIT 1), effective_limits) FROM subscriptions WHERE company_id = $1`, pgx.Identifier{tenant.SchemaOf(company)}.Sanitize()),
		company).Scan(&limits, &effective, &overrides, &users); err != nil {
		t.Fatal(err)
	}
	if want := overrides.Over(limits); !reflect.DeepEqual(effective, want) || !reflect.DeepEqual(users, want) {
		t.Errorf("%s: the limits are %+v, and of users %+v, want %+v", company, effective, users, want)
	}
}

// observed is what the tables hold of a company.
func observed(t *testing.T, dsn, company string) *tenantmodel.World {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	w := tenantmodel.NewWorld()
	none := "'0001-01-01 00:00+00'"
	for _, table := range []struct {
		into func(id string, row []byte) error
		sql  string
	}{
		{read(w.Companies), "SELECT company_id AS id, status, currency, billing_email FROM companies"},
		{read(w.Users), "SELECT user_id AS id, company_id, email, subscription_status AS status FROM user_directory"},
		{read(w.Subscriptions), fmt.Sprintf(`SELECT company_id AS id, tier, status, period_start, period_end, period_months, price_minor, currency,
			coalesce(pending_tier, '') AS pending_tier, cancel_at_period_end, coalesce(pending_at, %[1]s) AS pending_at, coalesce(grace_until, %[1]s) AS grace_until,
			coalesce(renewal_until, %[1]s) AS renewal_until, coalesce(next_period_start, %[1]s) AS next_period_start,
			coalesce(next_period_end, %[1]s) AS next_period_end, coalesce(previous_tier, '') AS previous_tier FROM subscriptions`, none)},
		{read(w.Overrides), fmt.Sprintf(`SELECT company_id || ' ' || limit_name AS id, jsonb_build_object('value', value, 'reason', reason, 'set_at', set_at,
			'expires_at', coalesce(expires_at, %s)) AS value FROM limit_overrides`, none)},
		{read(w.Configs), "SELECT company_id AS id, config AS value FROM company_config"},
		{read(w.Transactions), `SELECT transaction_id AS id, company_id, transaction_type, old_tier, new_tier, amount_minor, currency,
			(SELECT coalesce(jsonb_agg(l -> 'amount_minor' ORDER BY n), '[]') FROM jsonb_array_elements(lines) WITH ORDINALITY AS l (l, n)) AS lines,
			period_start, period_end, coalesce(payment_data ->> 'payment_id', '') AS payment_id FROM billing_transactions`},
		{read(w.Payments), fmt.Sprintf(`SELECT payment_id AS id, company_id, status, coalesce(amount_minor, 0) AS amount_minor, coalesce(currency, '') AS currency,
			coalesce(transaction_id, '') AS transaction_id, coalesce(period_start, %s) AS period_start FROM payments`, none)},
		{func(id string, row []byte) error {
			var identity tenantmodel.Identity
			if err := identity.UnmarshalText([]byte(id)); err != nil {
				return err
			}
			w.Inbox[identity] = strings.Trim(string(row), `"`)
			return nil
		}, "SELECT source || ' ' || event_id AS id, state AS value, company_id FROM inbox"},
	} {
		rows, err := conn.Query(t.Context(), "SELECT to_jsonb(r) ->> 'id', coalesce(to_jsonb(r) -> 'value', to_jsonb(r)) FROM ("+table.sql+" WHERE company_id = $1) AS r", company)
		if err != nil {
			t.Fatal(err)
		}
		var id string
		var row []byte
		if _, err := pgx.ForEachRow(rows, []any{&id, &row}, func() error { return table.into(id, row) }); err != nil {
			t.Fatalf("%s: %v", table.sql, err)
		}
	}
	return w
}

// read puts rows into a map.
func read[V any](into map[string]V) func(id string, row []byte) error {
	return func(id string, row []byte) error {
		var v V
		if err := json.Unmarshal(row, &v); err != nil {
			return err
		}
		into[id] = v
		return nil
	}
}
