// Package postgrestest gives tests a Postgres that is ready for use.
package postgrestest

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
	"tenantflow/migrations"
	"tenantflow/sinks/postgres"
)

// New makes a database of the test's own on the shared server, with all tables and the built-in catalogue of tiers, and
// returns its DSN. It is dropped at the test's end.
func New(t testing.TB) string {
	t.Helper()
	return On(t, enginetest.NewPostgresDatabase(t))
}

// On makes the tables and the catalogue in a database that is there, and returns its DSN.
func On(t testing.TB, dsn string) string {
	t.Helper()
	options, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := migrations.OpenPostgres(t.Context(), options, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tables.Close() }() // everything was answered before
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, Timeout: enginetest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.SyncTiers(t.Context(), tier.Default()); err != nil {
		t.Fatal(err)
	}
	return dsn
}
