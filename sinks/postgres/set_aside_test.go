package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// another is the book of another company in the same database.
func (b *book) another(t *testing.T) *book {
	t.Helper()
	other := newBook(t)
	other.world, other.tenants = b.world, b.tenants
	return other
}

// retry tries all companies again that can't go on, as if their time had come. It returns those that still can't.
func (b *book) retry(t *testing.T) (done []postgres.Applied, blocked []string) {
	t.Helper()
	b.exec(t, "UPDATE company_blocks SET next_try = now()")
	companies, err := b.tenants.Retry(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, company := range companies {
		one, err := b.tenants.Drain(t.Context(), company)
		done = append(done, one...)
		var still *postgres.BlockedError
		switch {
		case errors.As(err, &still):
			blocked = append(blocked, still.Company)
		case err != nil:
			t.Fatal(err)
		}
	}
	return done, blocked
}

// holdUser opens a transaction as a company's own login that holds its first user, as an account that is being made does.
func (b *book) holdUser(t *testing.T) (name string, release func()) {
	t.Helper()
	name = "login_" + b.company
	b.exec(t, fmt.Sprintf(`CREATE ROLE %s LOGIN`, name), fmt.Sprintf(`GRANT "tenant_%s" TO %s`, b.company, name))
	t.Cleanup(func() { b.dropRole(name) })
	cfg, err := pgx.ParseConfig(b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.RuntimeParams["application_name"] = name, "trading"
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), fmt.Sprintf(`INSERT INTO "tenant_%s".mt5_accounts (account_id, user_id, account_number) VALUES (1, '%[1]s-u1', 'n')`, b.company)); err != nil {
		t.Fatal(err)
	}
	return name, func() {
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// dropRole removes a role at the end of a test, with what it may do here.
func (b *book) dropRole(name string) {
	if conn, err := pgx.Connect(context.Background(), b.dsn); err == nil {
		_, _ = conn.Exec(context.Background(), "DROP OWNED BY "+name+"; DROP ROLE "+name)
		_ = conn.Close(context.Background())
	}
}

// tenantsAs are the tenants of a connection as another user.
func (b *book) tenantsAs(t *testing.T, dsn string) *postgres.Tenants {
	t.Helper()
	return open(t, postgres.Config{DSN: dsn}).Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})})
}

func TestBlocked_ALockHoldsUpItsCompanyAlone(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	name, release := b.holdUser(t)
	removal := b.event(events.TypeUserRemoved, `"user_id":"`+b.company+`-u1"`)
	b.apply(t, removal) // set aside
	config := b.event(events.TypeConfigUpdated, `"config":{"a":1}`)
	b.apply(t, config)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`))
	b.apply(t, removal) // again: it waits once
	b.another(t).register(t)
	if got := b.row(t, "SELECT type, state FROM inbox WHERE company_id = $1 AND state = 'waiting' ORDER BY seq", b.company); got !=
		"(company.user_removed.v1,waiting) ; (company.config_updated.v1,waiting) ; (subscription.upgrade_requested.v1,waiting)" {
		t.Errorf("inbox: %s", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	var blocks []postgres.Block
	// A try that ends before Postgres has said who holds the lock leaves it to the next one.
	if err := enginetest.Eventually(ctx, func() bool {
		var err error
		if blocks, err = b.tenants.Blocked(ctx, 10); err != nil || len(blocks) != 1 {
			t.Fatalf("blocked: %+v, %v", blocks, err)
		}
		if blocks[0].By == "" {
			b.retry(t)
		}
		return blocks[0].By != ""
	}); err != nil {
		t.Fatalf("who holds the lock: %v", err)
	}
	if x := blocks[0]; x.Company != b.company || x.Reason != postgres.BlockedByLock || x.Waiting != 3 || !strings.Contains(x.By, name) || !strings.Contains(x.By, "trading") {
		t.Errorf("blocked: %+v", x)
	}
	if settled, err := b.tenants.Settled(t.Context(), []*events.Event{removal, config}); err != nil || !settled[0] || !settled[1] {
		t.Errorf("events that are set aside are tried at every delivery: %v, %v", settled, err)
	}
	if stranded, err := b.tenants.Stranded(t.Context(), 10); err != nil || len(stranded) != 0 {
		t.Errorf("stranded: %v, %v", stranded, err)
	}
	b.exec(t, "UPDATE inbox SET wait_until = now() - interval '1 hour'")
	if gone, err := b.tenants.GiveUp(t.Context(), 0, 10); err != nil || len(gone) != 0 {
		t.Errorf("refused: %v, %v", gone, err)
	}
	if done, still := b.retry(t); len(done) != 0 || !slices.Equal(still, []string{b.company}) {
		t.Errorf("while it is locked: %v, %v", done, still)
	}
	if again, err := b.tenants.Retry(t.Context(), 10); err != nil || len(again) != 0 {
		t.Errorf("tried again at once: %v, %v", again, err)
	}
	release()
	done, still := b.retry(t)
	b.expect(t, "going on", done, []string{"company.user_deprovisioned", "company.config_changed", "subscription.upgraded", "company.config_changed"})
	if blocks, err := b.tenants.Blocked(t.Context(), 10); err != nil || len(blocks)+len(still) != 0 {
		t.Errorf("afterwards: %v, %v, %v", still, blocks, err)
	}
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"a":2}`), "company.config_changed")
}

// The lock that an operator holds who changes a company by hand, as the documentation says.
func TestBlocked_NewEventsDontWaitForTheCompanysLock(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	tx, err := b.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT lock_company($1)", b.company); err != nil {
		t.Fatal(err)
	}
	b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"a":1}`))
	for range 20 {
		b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"b":1}`))
	}
	if blocks, err := b.tenants.Blocked(t.Context(), 10); err != nil || len(blocks) != 1 || blocks[0].Tries != 1 || blocks[0].Waiting != 21 {
		t.Errorf("blocked: %+v, %v", blocks, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if done, still := b.retry(t); len(done) != 21 || len(still) != 0 {
		t.Errorf("%d events are done, %v can't go on", len(done), still)
	}
}

func TestBlocked_ARegistrationGoesOnBeforeWhatWaitsForIt(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`))
	tx, err := b.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT lock_company($1)", b.company); err != nil {
		t.Fatal(err)
	}
	b.apply(t, b.event(events.TypeCompanyRegistered, fmt.Sprintf(`"name":"A","billing_email":"a@x","initial_user":{"user_id":"%s-u1","email":"z@x"}`, b.company)))
	b.exec(t, "UPDATE inbox SET wait_until = now() - interval '1 hour'")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if gone, err := b.tenants.GiveUp(t.Context(), 0, 10); err != nil || len(gone) != 0 {
		t.Errorf("refused although the registration is there: %v, %v", gone, err)
	}
	done, still := b.retry(t)
	b.expect(t, "going on", done, []string{"company.created", "subscription.created", "company.config_changed", "subscription.upgraded", "company.config_changed"})
	if len(still) != 0 {
		t.Errorf("%v can't go on", still)
	}
}

func TestBlocked_AMissingRowHoldsUpItsCompanyAlone(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.exec(t, "CREATE TABLE kept AS SELECT tier, period_start, period_end, price_minor, limits FROM subscriptions", "DELETE FROM subscriptions")
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`))
	b.apply(t, b.event(events.TypePaymentReceived, `"payment_id":"`+b.company+`-p","amount_minor":4900,"currency":"USD","paid_at":"2026-02-01T00:00:00Z"`))
	b.another(t).register(t)
	if blocks, err := b.tenants.Blocked(t.Context(), 10); err != nil || len(blocks) != 1 || blocks[0].Reason != postgres.BlockedByState ||
		!strings.Contains(blocks[0].Detail, "insert its row into public.subscriptions") {
		t.Fatalf("blocked: %+v, %v", blocks, err)
	}
	b.exec(t, "INSERT INTO subscriptions (company_id, tier, period_start, period_end, price_minor, limits) SELECT '"+b.company+"', * FROM kept")
	done, _ := b.retry(t)
	b.expect(t, "going on", done, []string{"subscription.upgraded", "company.config_changed", "subscription.payment_recorded"})
}

func TestBlocked_AnEventThatTakesTooLongHoldsUpItsCompanyAlone(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.exec(t, fmt.Sprintf(`CREATE FUNCTION "tenant_%s".sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); RETURN NEW; END'`, b.company),
		fmt.Sprintf(`CREATE TRIGGER sleep BEFORE UPDATE ON "tenant_%s".users FOR EACH ROW EXECUTE FUNCTION "tenant_%[1]s".sleep()`, b.company))
	patient := b.tenants
	b.tenants = b.store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()}), Timeout: 5 * time.Second})
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`))
	b.tenants = patient
	b.another(t).register(t)
	if blocks, err := b.tenants.Blocked(t.Context(), 10); err != nil || len(blocks) != 1 || blocks[0].Reason != postgres.BlockedBySize || blocks[0].Waiting != 1 {
		t.Fatalf("blocked: %+v, %v", blocks, err)
	}
	b.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
		fmt.Sprintf(`DROP TRIGGER sleep ON "tenant_%s".users`, b.company))
	done, _ := b.retry(t)
	b.expect(t, "going on", done, []string{"subscription.upgraded", "company.config_changed"})
}

func TestBlocked_AConflictIsFoundAllTheSame(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	e := b.event(events.TypeConfigUpdated, `"config":{"a":1}`)
	b.apply(t, e, "company.config_changed")
	tx, err := b.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "SELECT lock_company($1)", b.company); err != nil {
		t.Fatal(err)
	}
	other := *e
	other.Data = []byte(strings.Replace(string(e.Data), `"a":1`, `"a":2`, 1))
	for range 2 {
		if _, err := b.tenants.Apply(t.Context(), &other, b.place(0)); !isRejection(err, events.Conflict) {
			t.Errorf("other data under a known identity: %v", err)
		}
	}
}

// Events that have waited in vain shorten the wait of the next ones, which then don't find out who blocks. The next try does, which no
// partition waits for.
func TestBlocked_TheNextTryFindsWhoBlocksEachOfSeveral(t *testing.T) {
	t.Parallel()
	a := newBook(t)
	b := a.another(t)
	logins := map[string]string{}
	for _, one := range []*book{a, b} {
		one.register(t)
		logins[one.company], _ = one.holdUser(t)
	}
	for _, one := range []*book{a, b} {
		one.apply(t, one.event(events.TypeUserRemoved, `"user_id":"`+one.company+`-u1"`))
	}
	var blocks []postgres.Block
	// A try that ends before Postgres has said who holds the lock leaves it to the one after it.
	enginetest.Await(t, "who holds the locks", func() bool {
		if _, still := a.retry(t); len(still) != 2 {
			t.Fatalf("%v can't go on, want both", still)
		}
		var err error
		if blocks, err = a.tenants.Blocked(t.Context(), 10); err != nil || len(blocks) != 2 {
			t.Fatalf("blocked: %+v, %v", blocks, err)
		}
		return blocks[0].By != "" && blocks[1].By != ""
	})
	for _, one := range blocks {
		if !strings.Contains(one.By, logins[one.Company]) {
			t.Errorf("%s is blocked by %q, want %s", one.Company, one.By, logins[one.Company])
		}
	}
}
