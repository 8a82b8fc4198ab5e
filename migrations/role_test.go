package migrations_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"tenantflow/internal/engine/enginetest"
)

// All databases of a server share the role, so the first one to be migrated makes it, and the others may come upon it
// half made. Sessions whose catalogues are read already hear late of what others have done.
func TestDatabasesOfOneServerMigratedAtOnceShareTheRole(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("postgres/00005_tenants.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "DO $$")
	block, _, end := strings.Cut(block, "-- +goose StatementEnd")
	if !found || !end || !strings.Contains(block, "CREATE ROLE database_service_role") {
		t.Fatalf("the migration makes the role elsewhere: %s", block)
	}

	server, err := pgx.ParseConfig(enginetest.Postgres(t).DSN())
	if err != nil {
		t.Fatal(err)
	}
	connect := func(database string) *pgx.Conn {
		options := server.Copy()
		options.Database = database
		conn, err := pgx.ConnectConfig(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) }) // everything was answered before
		return conn
	}
	admin := connect(server.Database)
	databases := make([]*pgx.Conn, 8)
	for i := range databases {
		name := fmt.Sprintf("d%d", i)
		if _, err := admin.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
			t.Fatal(err)
		}
		databases[i] = connect(name)
	}
	for range 10 {
		var group errgroup.Group
		for _, conn := range databases {
			group.Go(func() error {
				return pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
					if _, err := tx.Exec(t.Context(), "DO $$"+block); err != nil {
						return err
					}
					_, err := tx.Exec(t.Context(), "GRANT USAGE ON SCHEMA public TO database_service_role")
					return err
				})
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		for _, conn := range databases {
			if _, err := conn.Exec(t.Context(), "DROP OWNED BY database_service_role"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := admin.Exec(t.Context(), "DROP ROLE database_service_role"); err != nil {
			t.Fatal(err)
		}
	}
}
