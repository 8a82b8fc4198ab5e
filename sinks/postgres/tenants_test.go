package postgres_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// book is a database with tenants, and the one company a test is about.
type book struct {
	*world
	tenants *postgres.Tenants
	company string
	clock   time.Time // of the next event
	next    int
	offset  int64
}

func newBook(t *testing.T) *book {
	t.Helper()
	w := setup(t)
	return &book{
		world:   w,
		tenants: w.store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()}), Wait: time.Hour}),
		company: "c" + strings.ToLower(rand.Text()[:12]), // roles belong to the whole cluster
		clock:   time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC),
	}
}

// event makes an event of the company, a minute after the one before. Data is JSON without company_id.
func (b *book) event(eventType, data string) *events.Event {
	b.next++
	b.clock = b.clock.Add(time.Minute)
	text := fmt.Sprintf(`{"company_id":%q`, b.company)
	if data != "" {
		text += "," + data
	}
	return &events.Event{Key: b.company, Envelope: events.Envelope{
		Source: "/test", ID: fmt.Sprintf("%s-%d", b.company, b.next), Type: eventType, Time: b.clock, Data: []byte(text + "}"),
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}}
}

// told is what events have led to, one line a result: its type and, for a refusal, the code.
func told(t *testing.T, done []postgres.Applied) []string {
	t.Helper()
	lines := []string{}
	for _, one := range done {
		for _, r := range one.Results {
			if r.Event == nil {
				lines = append(lines, r.Topic+" tombstone")
				continue
			}
			line := strings.TrimSuffix(r.Event.Type, ".v1")
			var data struct{ Code string }
			if err := json.Unmarshal(r.Event.Data, &data); err != nil {
				t.Errorf("%s: %v", r.Event.Data, err)
			}
			if data.Code != "" {
				line += " " + data.Code
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// apply applies an event, and checks what it leads to.
func (b *book) apply(t *testing.T, e *events.Event, want ...string) []postgres.Applied {
	t.Helper()
	done, err := b.tenants.Apply(t.Context(), e, b.place(3))
	if err != nil {
		t.Fatalf("%s: %v", e.Type, err)
	}
	b.expect(t, fmt.Sprintf("%s %s", e.Type, e.Data), done, want)
	return done
}

// place is where the next event stands in its topic. The broker takes it now.
func (b *book) place(partition int) postgres.Place {
	b.offset++
	return postgres.Place{Partition: partition, Offset: b.offset, Appended: time.Now()}
}

// settle publishes what is due by a time, one after the other, and checks what it leads to.
func (b *book) settle(t *testing.T, by time.Time, want ...string) []postgres.Applied {
	t.Helper()
	var all []postgres.Applied
	for {
		due, err := b.tenants.Due(t.Context(), 3, by, 10)
		if err != nil {
			t.Fatalf("what is due by %s: %v", by, err)
		}
		at := slices.IndexFunc(due, func(e *events.Event) bool { return e.Key == b.company })
		if at < 0 {
			break
		}
		done, err := b.tenants.Apply(t.Context(), due[at], b.place(3))
		if err != nil {
			t.Fatalf("%s: %v", due[at].ID, err)
		}
		all = append(all, done...)
	}
	b.expect(t, fmt.Sprintf("what is due by %s", by), all, want)
	return all
}

// expect checks what was done, and publishes it.
func (b *book) expect(t *testing.T, what string, done []postgres.Applied, want []string) {
	t.Helper()
	if got := told(t, done); !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("%s leads to %q, want %q", what, got, want)
	}
	if err := b.tenants.MarkPublished(t.Context(), done); err != nil {
		t.Fatal(err)
	}
}

func (b *book) register(t *testing.T) {
	t.Helper()
	b.apply(t, b.event(events.TypeCompanyRegistered, fmt.Sprintf(`"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"%s-u1","email":"u1@acme.example"}`, b.company)),
		"company.created", "subscription.created", "company.config_changed")
}

// row is one row of a query, as text.
func (b *book) row(t *testing.T, query string, args ...any) string {
	t.Helper()
	var text string
	if err := b.conn.QueryRow(t.Context(), "SELECT coalesce(string_agg(r::text, ' ; '), '') FROM ("+query+") AS r", args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return text
}

func TestACompanyIsRegisteredWholeAndOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	e := b.event(events.TypeCompanyRegistered, fmt.Sprintf(`"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"%s-u1","email":"u1@acme.example"},"config":{"theme":"dark"}`, b.company))
	first := b.apply(t, e, "company.created", "subscription.created", "company.config_changed")
	b.apply(t, e) // published: nothing is left to do
	created := first[0].Results[0]
	if created.Event.ID != events.ResultID("/test", e.ID, events.TypeCompanyCreated, 0) || created.Event.CausationID != e.ID || created.Event.TraceParent != e.TraceParent ||
		created.Event.Source != "/tenantflow/company" || created.Key != b.company || created.Topic != events.TopicCompanyResults {
		t.Errorf("created: %+v", created.Event)
	}
	for query, want := range map[string]string{
		"SELECT tier, status, price_minor, period_start, period_end FROM subscriptions":                                            `(free,active,0,"2026-01-31 10:01:00+00","2026-02-28 10:01:00+00")`,
		"SELECT subscription_tier, subscription_status, email FROM tenant_" + b.company + ".users":                                 `(free,active,u1@acme.example)`,
		"SELECT config->>'theme', config->>'billing_email', config->'max_users', config->>'subscription_tier' FROM company_config": `(dark,pay@acme.example,1,free)`,
		"SELECT action, seq FROM audit_log":                                        `(company.created,1)`,
		"SELECT state, published_at IS NOT NULL FROM inbox":                        `(done,t)`,
		"SELECT count(*) FROM pg_roles WHERE rolname = 'tenant_" + b.company + "'": `(1)`,
	} {
		query = strings.ReplaceAll(query, "tenant_"+b.company+".", `"tenant_`+b.company+`".`)
		if got := b.row(t, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	again := *e
	again.ID = "other"
	b.apply(t, &again, "company.rejected company_exists")
	changed := *e
	changed.Data = []byte(strings.Replace(string(e.Data), "dark", "light", 1))
	if _, err := b.tenants.Apply(t.Context(), &changed, b.place(0)); !isRejection(err, events.Conflict) {
		t.Errorf("the same identity with other data: %v", err)
	}
}

func isRejection(err error, reason events.Reason) bool {
	var r *events.Rejection
	return errors.As(err, &r) && r.Reason == reason
}

// subscription is the company's, as text.
func (b *book) subscription(t *testing.T) string {
	t.Helper()
	return b.row(t, `SELECT tier, status, price_minor, to_char(period_start, 'MM-DD'), to_char(period_end, 'MM-DD'), pending_tier,
		to_char(grace_until, 'MM-DD'), previous_tier FROM subscriptions`)
}

func TestASubscriptionGoesUpAndDownWithItsBooks(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	if got := b.subscription(t); got != "(free,active,0,01-31,02-28,,,)" {
		t.Errorf("registered: %s", got)
	}
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"gold"`), "subscription.rejected unknown_tier")
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"free"`), "subscription.rejected invalid_upgrade_path")
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro","expected_tier":"enterprise"`), "subscription.rejected tier_changed")
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"free"`), "subscription.rejected invalid_downgrade_path")
	b.apply(t, b.event(events.TypeCancelRequested, ""), "subscription.rejected invalid_downgrade_path")
	b.apply(t, b.event(events.TypeExpired, ""), "subscription.rejected not_expired")
	b.apply(t, b.event(events.TypeChangeWithdrawn, ""), "subscription.rejected nothing_scheduled")

	up := b.event(events.TypeUpgradeRequested, `"new_tier":"pro","payment":{"payment_id":"`+b.company+`-p1","method":"card","reference":"r-1","order":[1,"x"]}`)
	b.apply(t, up, "subscription.upgraded", "company.config_changed")
	if got := b.subscription(t); got != "(pro,active,4900,01-31,02-28,,,)" {
		t.Errorf("upgraded: %s", got)
	}
	b.apply(t, b.event(events.TypePaymentReceived, `"payment_id":"`+b.company+`-p1","amount_minor":4900,"currency":"USD","paid_at":"2026-01-31T10:20:00Z"`), "subscription.payment_recorded")
	if got, want := b.row(t, "SELECT payment_id, amount_minor, method, status, transaction_id IS NOT NULL FROM payments"), "("+b.company+"-p1,4900,card,received,t)"; got != want {
		t.Errorf("payment %s, want %s", got, want)
	}
	if got, want := b.row(t, "SELECT payment_data = jsonb_build_object('payment_id', '"+b.company+"-p1', 'method', 'card', 'reference', 'r-1', 'order', jsonb_build_array(1, 'x')) FROM billing_transactions"), "(t)"; got != want {
		t.Errorf("the payment is not kept whole: %s", b.row(t, "SELECT payment_data FROM billing_transactions"))
	}
	b.clock = time.Date(2026, 2, 14, 10, 6, 0, 0, time.UTC) // half of the period is over
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise","payment":{"payment_id":"`+b.company+`-p1"}`), "subscription.rejected duplicate_payment")
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"enterprise"`), "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"pro"`), "subscription.downgrade_scheduled")
	if got := b.subscription(t); got != "(enterprise,active,49900,01-31,02-28,pro,,)" {
		t.Errorf("scheduled: %s", got)
	}
	// The period's end has passed when the next event comes: what was due then is done before.
	b.clock = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeCancelRequested, ""), "subscription.downgraded", "company.config_changed", "subscription.cancellation_scheduled")
	if got := b.subscription(t); got != "(pro,active,4900,02-28,03-31,free,,)" {
		t.Errorf("after the period's end: %s", got)
	}
	b.clock = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.cancelled", "company.config_changed", "subscription.upgraded", "company.config_changed")
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"free","effective":"immediate"`), "subscription.downgraded", "company.config_changed")
	if got := b.subscription(t); got != "(free,active,0,04-01,05-01,,,)" {
		t.Errorf("at last: %s", got)
	}
	want := `(upgrade,free,pro,4900,"[{""description"": ""charge"", ""amount_minor"": 4900}]") ; ` +
		`(upgrade,pro,enterprise,22500,`
	got := b.row(t, "SELECT transaction_type, old_tier, new_tier, amount_minor, lines FROM billing_transactions ORDER BY created_at")
	if !strings.HasPrefix(got, want[:40]) || !strings.Contains(got, "(downgrade,enterprise,pro,4900,") || !strings.Contains(got, "(downgrade,pro,free,0,") {
		t.Errorf("books: %s", got)
	}
	if got := b.row(t, "SELECT count(*) FROM billing_transactions WHERE amount_minor <> coalesce((SELECT sum((l->>'amount_minor')::bigint) FROM jsonb_array_elements(lines) AS l), 0)"); got != "(0)" {
		t.Errorf("%s transactions whose lines do not sum to the amount", got)
	}
}

func TestWhatACompanySetsForItselfIsPatchedAndChecked(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"theme":{"color":"red","size":2},"billing_email":"new@acme.example"}`), "company.config_changed")
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"theme":{"size":null}}`), "company.config_changed")
	if got := b.row(t, "SELECT config->'theme', config->>'billing_email' FROM company_config"); got != `("{""color"": ""red""}",new@acme.example)` {
		t.Errorf("config: %s", got)
	}
	if got := b.row(t, "SELECT billing_email FROM companies"); got != "(new@acme.example)" {
		t.Errorf("company: %s", got)
	}
	for _, bad := range []string{`{"max_users":5}`, `{"subscription_tier":"pro"}`, `{"features_enabled":null}`, `{"Company_ID":"x"}`, `{"support_level":"phone"}`,
		`{"version":1}`, `{"billing_email":null}`, `{"billing_email":"nobody"}`, `{"n":1e999}`, `{"big":"` + strings.Repeat("x", 70_000) + `"}`} {
		b.apply(t, b.event(events.TypeConfigUpdated, `"config":`+bad), "company.rejected invalid_config")
	}
}

func TestUsersComeAndGoWithinTheTier(t *testing.T) {
	t.Parallel()
	b, other := newBook(t), newBook(t)
	other.world, other.tenants = b.world, b.tenants
	b.register(t)
	other.register(t)
	user := func(b *book, n int, mail string) string {
		return fmt.Sprintf(`"user_id":"%s-u%d","email":"%s"`, b.company, n, mail)
	}
	b.apply(t, b.event(events.TypeUserAdded, user(b, 2, "u2@x")), "company.rejected user_limit_reached")
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	written := "SELECT xmin FROM \"tenant_" + b.company + "\".users WHERE user_id LIKE '%-u1'"
	before := b.row(t, written)
	b.apply(t, b.event(events.TypeUserAdded, user(b, 2, "u2@x")), "company.user_provisioned")
	b.apply(t, b.event(events.TypeUserAdded, user(b, 9, "u9@x")), "company.user_provisioned")
	b.apply(t, b.event(events.TypeUserRemoved, `"user_id":"`+b.company+`-u9"`), "company.user_deprovisioned")
	if b.row(t, written) != before {
		t.Error("all users are written when one comes or goes, which takes the longer the more there are")
	}
	if got := b.row(t, `SELECT subscription_tier, subscription_status, subscription_end_date = (SELECT period_end FROM subscriptions WHERE company_id = '`+b.company+
		`'), subscription_limits->>'max_users' FROM "tenant_`+b.company+`".users WHERE user_id LIKE '%-u2'`); got != "(pro,active,t,25)" {
		t.Errorf("who has come: %s", got)
	}
	b.apply(t, b.event(events.TypeUserAdded, user(b, 2, "u3@x")), "company.rejected user_exists")
	b.apply(t, b.event(events.TypeUserAdded, user(b, 3, "u2@x")), "company.rejected user_exists")
	b.apply(t, b.event(events.TypeUserAdded, user(other, 1, "o@x")), "company.rejected user_exists")
	b.apply(t, b.event(events.TypeUserRemoved, `"user_id":"`+other.company+`-u1"`), "company.rejected unknown_user")
	b.apply(t, b.event(events.TypeUserRemoved, `"user_id":"nobody"`), "company.rejected unknown_user")
	b.apply(t, b.event(events.TypeUserRemoved, `"user_id":"`+b.company+`-u2"`), "company.user_deprovisioned")
	b.apply(t, b.event(events.TypeUserAdded, user(b, 2, "u2@x")), "company.user_provisioned")
	b.apply(t, b.event(events.TypeUserErasureRequested, `"user_id":"`+b.company+`-u2"`)) // held
	if got := b.row(t, "SELECT state, event IS NOT NULL FROM inbox WHERE state = 'held'"); got != "(held,t)" {
		t.Errorf("held: %s", got)
	}
	b.apply(t, b.event(events.TypeSchemaUpgradeRequested, ""), "company.schema_upgraded")
	b.apply(t, b.event(events.TypeSchemaUpgradeRequested, `"target_version":99`), "company.rejected invalid_config")

	reg := other.event(events.TypeCompanyRegistered, `"name":"A","billing_email":"a@x","currency":"EUR","initial_user":{"user_id":"zz","email":"z@x"}`)
	reg.Key += "x"
	reg.Data = []byte(strings.Replace(string(reg.Data), other.company, reg.Key, 1))
	b.apply(t, reg, "company.rejected unsupported_currency")
	reg.ID, reg.Data = reg.ID+"b", []byte(strings.Replace(strings.Replace(string(reg.Data), `"EUR"`, `"USD"`, 1), `"zz"`, `"`+b.company+`-u1"`, 1))
	b.apply(t, reg, "company.rejected user_exists")
}
