package enginetest

import (
	"context"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
)

// NewPostgresDatabase makes an empty database of the test's own on the shared PostgreSQL server and returns its DSN. It
// is dropped at the test's end, with the connections that are still open.
func NewPostgresDatabase(t testing.TB) string {
	t.Helper()
	p := SharedPostgres(t)
	dsn, err := url.Parse(p.DSN())
	if err != nil {
		t.Fatal(err)
	}
	name := current(t).name(t, "_")
	name = name[:min(len(name), 63)] // PostgreSQL cuts longer ones off
	if err := execPostgres(t.Context(), p.DSN(), "CREATE DATABASE "+name); err != nil {
		t.Fatalf("make the test's database: %v", err)
	}
	t.Cleanup(func() {
		if err := execPostgres(context.Background(), p.DSN(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	dsn.Path = "/" + name
	return dsn.String()
}

func execPostgres(ctx context.Context, dsn, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, statement)
	return err
}
