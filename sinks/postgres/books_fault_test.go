package postgres_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/tenant"
	"tenantflow/sinks/postgres"
)

// readBooks reads the books of the company, and gives what is wrong with its own schema.
func (b *book) readBooks(t *testing.T, store *postgres.Store) (fault string) {
	t.Helper()
	got, err := store.Books(t.Context(), b.company)
	if err != nil {
		t.Errorf("books of a company with trouble of its own: %v", err)
		return "none"
	}
	return got.SchemaFault
}

func TestBooks_TroubleOfOneCompanyIsAFinding(t *testing.T) {
	t.Parallel()
	first := newBook(t)
	view := func(body string) []string {
		return []string{"ALTER TABLE $.users RENAME TO gone",
			"CREATE FUNCTION $.harm(x text) RETURNS text LANGUAGE plpgsql AS 'BEGIN " + strings.ReplaceAll(body, "'", "''") + " RETURN x; END'",
			"CREATE VIEW $.users AS SELECT user_id, $.harm(email::text) AS email, subscription_status, subscription_tier, subscription_limits FROM $.gone"}
	}
	for name, harm := range map[string][]string{
		"a view that divides by zero": view("x := 1 / 0;"),
		"a view that raises":          view("RAISE EXCEPTION 'no %', x;"),
		"a view that claims damage":   view("RAISE EXCEPTION USING ERRCODE = 'XX001', MESSAGE = 'no';"),
		"a view that claims a cancel": view("RAISE EXCEPTION USING ERRCODE = '57014', MESSAGE = 'no';"),
		"a view that claims no room":  view("RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'no';"),
		"a column of another type":    {"ALTER TABLE $.users DROP CONSTRAINT IF EXISTS users_email_key", "ALTER TABLE $.users ALTER email DROP NOT NULL", "UPDATE $.users SET email = NULL"},
		"a table that is gone":        {"ALTER TABLE $.users RENAME COLUMN email TO gone"},
	} {
		b := first.another(t)
		b.register(t)
		b.sql(t, harm...)
		if fault := b.readBooks(t, b.store); fault == "" || fault == "none" || strings.Contains(fault, "@") {
			t.Errorf("%s: fault %q, want one without an address", name, fault)
		}
	}
}

func TestBooks_ASchemaThatMayNotBeUsedIsAFinding(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	name := "reader_" + b.company
	b.exec(t, "CREATE ROLE "+name+" LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+name, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO "+name)
	t.Cleanup(func() { b.dropRole(name) })
	address, err := url.Parse(b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.User(name)
	if fault := b.readBooks(t, open(t, postgres.Config{DSN: address.String()})); fault == "" || fault == "none" {
		t.Errorf("fault %q, want one", fault)
	}
}

func TestBooks_ACancelIsNoFinding(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.sql(t, "ALTER TABLE $.users RENAME TO gone", "CREATE VIEW $.users AS SELECT user_id, CASE WHEN pg_cancel_backend(pg_backend_pid()) THEN pg_sleep(5)::text END AS email, "+
		"subscription_status, subscription_tier, subscription_limits FROM $.gone")
	if got, err := b.store.Books(t.Context(), b.company); err == nil {
		t.Errorf("fault %q, want an error", got.SchemaFault)
	}
}

func TestBooks_OneSlowOrLockedTableIsAFinding(t *testing.T) {
	t.Parallel()
	slow := newBook(t)
	store := open(t, postgres.Config{DSN: slow.dsn, Timeout: 2 * time.Second})
	slow.register(t)
	slow.sql(t, "ALTER TABLE $.users RENAME TO gone", "CREATE VIEW $.users AS SELECT user_id, email || pg_sleep(60)::text AS email, subscription_status, subscription_tier, subscription_limits FROM $.gone")
	locked := slow.another(t)
	locked.register(t)
	holder, err := pgx.Connect(t.Context(), slow.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Close(context.Background()) })
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE "+pgx.Identifier{tenant.SchemaOf(locked.company), "users"}.Sanitize()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*book{"a view that takes a minute": slow, "a locked table": locked} {
		if fault := b.readBooks(t, store); !strings.Contains(fault, "1.5s") {
			t.Errorf("%s: fault %q", name, fault)
		}
	}
}
