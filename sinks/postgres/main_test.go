package postgres_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/migrations"
	"tenantflow/sinks/postgres"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// A world is a migrated database of the test's own, with the built-in catalogue.
type world struct {
	dsn   string
	store *postgres.Store
	conn  *pgx.Conn // for what other programs do
}

func setup(t *testing.T) *world {
	t.Helper()
	return setupOn(t, enginetest.NewPostgresDatabase(t))
}

func setupOn(t *testing.T, dsn string) *world {
	t.Helper()
	w := &world{dsn: postgrestest.On(t, dsn)}
	w.store = open(t, postgres.Config{DSN: w.dsn})
	w.conn = connect(t, w.dsn)
	return w
}

func migrate(t *testing.T, dsn string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	p, err := migrations.OpenPostgres(t.Context(), cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, cfg postgres.Config) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server may be gone by then
	return conn
}

func (w *world) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := w.conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
