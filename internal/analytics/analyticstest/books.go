package analyticstest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/sinks/postgres"
)

// Books opens a Postgres of the test's own, as the service does and for SQL.
func Books(t testing.TB) (*postgres.Store, *pgx.Conn) {
	t.Helper()
	dsn := postgrestest.New(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, Timeout: enginetest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store, conn
}

// Exec executes statements.
func Exec(t testing.TB, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
