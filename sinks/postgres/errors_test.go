package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// expect checks the class of an error and that it says something.
func expect(t *testing.T, what string, err error, class postgres.Class, says string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	if got := postgres.Classify(err); got != class || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: class %d and %q; want class %d and %q", what, got, err, class, says)
	}
}

func TestErrorsThatNeedAPersonAreFatalAndSayWhatToDo(t *testing.T) {
	t.Parallel()
	empty := enginetest.NewPostgresDatabase(t)
	store := open(t, postgres.Config{DSN: empty})
	_, err := store.Users(t.Context(), []string{"u"})
	expect(t, "users without tables", err, postgres.Fatal, migrateHint)
	_, err = store.Company(t.Context(), "c")
	expect(t, "a company without tables", err, postgres.Fatal, migrateHint)
	_, err = store.Changes(t.Context(), "")
	expect(t, "changes without a table", err, postgres.Fatal, migrateHint)
	_, err = store.SyncTiers(t.Context(), tier.Default())
	expect(t, "tiers without a table", err, postgres.Fatal, migrateHint)

	w := setup(t)
	w.exec(t, "ALTER TABLE subscriptions RENAME COLUMN effective_limits TO bounds")
	_, err = w.store.Users(t.Context(), []string{"u"})
	expect(t, "a missing column", err, postgres.Fatal, migrateHint)

	other := func(change func(*url.URL)) string {
		u, err := url.Parse(w.dsn)
		if err != nil {
			t.Fatal(err)
		}
		change(u)
		return u.String()
	}
	_, err = postgres.Open(t.Context(), postgres.Config{DSN: other(func(u *url.URL) { u.Path = "/nowhere" })})
	expect(t, "a missing database", err, postgres.Fatal, "or correct the database")
	_, err = postgres.Open(t.Context(), postgres.Config{DSN: other(func(u *url.URL) { u.User = url.UserPassword("nobody", "hunter2") })})
	expect(t, "an unknown user", err, postgres.Fatal, "correct the user or the password")
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the password is shown: %v", err)
	}
	_, err = postgres.Open(t.Context(), postgres.Config{DSN: "postgres://u:hunter2@host:port/db"})
	expect(t, "a DSN that is none", err, postgres.Fatal, "correct TENANTFLOW_POSTGRES_DSN")
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the password is shown: %v", err)
	}

	w.exec(t, "ALTER TABLE subscriptions RENAME COLUMN bounds TO effective_limits")
	role := "r_" + strings.ReplaceAll(w.conn.Config().Database, "-", "_")
	role = role[:min(len(role), 60)]
	w.exec(t, "CREATE ROLE "+role+" LOGIN", "GRANT CONNECT ON DATABASE "+w.conn.Config().Database+" TO "+role)
	t.Cleanup(func() {
		if _, err := w.conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	stranger := open(t, postgres.Config{DSN: other(func(u *url.URL) { u.User = url.User(role) })})
	_, err = stranger.Users(t.Context(), []string{"u"})
	expect(t, "no right to read", err, postgres.Fatal, "grant the user")

	// The rights that docs/tables.md asks for are enough.
	w.exec(t, "GRANT SELECT ON companies, company_config, user_directory, user_memberships, subscriptions, subscription_tiers, changes TO "+role, "GRANT DELETE ON changes TO "+role)
	if _, err := stranger.Users(t.Context(), []string{"u"}); err != nil {
		t.Error(err)
	}
	if _, err := stranger.Company(t.Context(), "c"); !errors.Is(err, directory.ErrUnknown) {
		t.Error(err)
	}
	if _, err := stranger.Changes(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if _, err := stranger.PruneChanges(t.Context()); err != nil {
		t.Error(err)
	}
	// A role that may write a table needs no right for what its triggers write.
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x')", "GRANT INSERT, UPDATE, DELETE ON user_directory TO "+role, "SET ROLE "+role,
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u', 'acme')", "UPDATE user_directory SET email = 'e'", "DELETE FROM user_directory", "RESET ROLE")
}

const migrateHint = `run "tenantflow migrate"`

func TestAnOutageIsTransientAndOver(t *testing.T) {
	t.Parallel()
	server := enginetest.Postgres(t)
	migrate(t, server.DSN())
	store := open(t, postgres.Config{DSN: server.DSN(), Timeout: time.Minute})
	look := func() error {
		_, err := store.Users(t.Context(), []string{"u"})
		return err
	}
	if err := look(); err != nil {
		t.Fatal(err)
	}
	if err := server.StopImmediate(); err != nil {
		t.Fatal(err)
	}
	expect(t, "a server that was stopped", look(), postgres.Transient, "look users up")
	expect(t, "again", look(), postgres.Transient, "look users up")
	_, err := postgres.Open(t.Context(), postgres.Config{DSN: server.DSN()})
	expect(t, "opening it then", err, postgres.Transient, "ping")
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool { return look() == nil }); err != nil {
		t.Errorf("after the restart: %v (%v)", err, look())
	}
}

func TestALookUpThatTakesTooLongIsTransient(t *testing.T) {
	t.Parallel()
	w := setup(t)
	pool, err := pgxpool.ParseConfig(w.dsn)
	if err != nil {
		t.Fatal(err)
	}
	pool.MaxConns = 1
	var store *postgres.Store
	// A server that is busy may need several tries, before anything is locked.
	enginetest.Await(t, "the store to be opened", func() bool {
		store, err = postgres.Open(t.Context(), postgres.Config{Pool: pool, Timeout: 200 * time.Millisecond})
		return err == nil
	})
	t.Cleanup(store.Close)
	w.exec(t, "BEGIN", "LOCK TABLE companies IN ACCESS EXCLUSIVE MODE")
	_, err = store.Company(t.Context(), "acme")
	expect(t, "a table that is locked", err, postgres.Transient, "deadline exceeded")
	w.exec(t, "ROLLBACK")
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := enginetest.Eventually(ctx, func() bool { _, err = store.Company(t.Context(), "acme"); return errors.Is(err, directory.ErrUnknown) }); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func TestErrorsOutsideTheClosedListAreTransient(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"08006", "40001", "40P01", "53300", "53200", "57P01", "57P03", "57014", "25006", "55P03", "0A000", "XX000", "", "4"} {
		if got := postgres.Classify(&pgconn.PgError{Code: code}); got != postgres.Transient {
			t.Errorf("%s is of class %d", code, got)
		}
	}
	for _, code := range []string{"28P01", "28000", "3D000", "42P01", "42501", "42601", "42P05", "22021", "23505"} {
		if got := postgres.Classify(&pgconn.PgError{Code: code}); got != postgres.Fatal {
			t.Errorf("%s is of class %d", code, got)
		}
	}
	if postgres.Classify(context.DeadlineExceeded) != postgres.Transient {
		t.Error("a deadline is not transient")
	}
}
