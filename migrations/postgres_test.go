package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/migrations"
)

// newPostgres gives the configuration of an empty database.
func newPostgres(t *testing.T) *pgx.ConnConfig {
	t.Helper()
	cfg, err := pgx.ParseConfig(enginetest.NewPostgresDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func openPostgres(t *testing.T, cfg *pgx.ConnConfig) *migrations.Postgres {
	t.Helper()
	p, err := migrations.OpenPostgres(t.Context(), cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// freeTier is what the migrations need of the catalogue for a subscription to be made.
const freeTier = `INSERT INTO subscription_tiers VALUES ('free', 0, 0, 'USD', '{"daily_api_calls": 1000, "storage_mb": 100, "max_users": 1,
	"retention_days": 30, "features_enabled": []}', '{}', 'community', 'weekly', 1, '5s', '2s'),
	('pro', 1, 4900, 'USD', '{"daily_api_calls": 50000, "storage_mb": "unlimited", "max_users": 25, "retention_days": 365,
	"features_enabled": ["x"]}', '{}', 'email', 'daily', 7, '15s', '1s')`

// migratedPostgres gives an open database with all versions and two tiers.
func migratedPostgres(t *testing.T) *migrations.Postgres {
	t.Helper()
	p := openPostgres(t, newPostgres(t))
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	execPostgres(t, p, freeTier)
	return p
}

func execPostgres(t *testing.T, p *migrations.Postgres, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := p.DB().ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestMigratingPostgresTwiceChangesNothingTheSecondTime(t *testing.T) {
	t.Parallel()
	p := openPostgres(t, newPostgres(t))
	before, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var tables int
	if err := p.DB().QueryRowContext(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables); err != nil || tables != 0 {
		t.Errorf("asking for the status made %d tables: %v", tables, err)
	}
	for _, v := range before {
		if !v.Pending() {
			t.Errorf("%s is applied to an empty database", v.Name)
		}
	}
	first, err := p.Up(t.Context())
	if err != nil || len(first) != len(before) || len(first) < 4 {
		t.Fatalf("applied %d versions of %d: %v", len(first), len(before), err)
	}
	schema := postgresSchema(t, p)
	second, err := p.Up(t.Context())
	if err != nil || len(second) != 0 || postgresSchema(t, p) != schema {
		t.Errorf("the second time: applied %v, %v", second, err)
	}
	after, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range after {
		if v.Pending() || v.Version != before[i].Version || time.Since(v.Applied).Abs() > time.Minute {
			t.Errorf("%+v", v)
		}
	}
}

func TestAMissingPostgresDatabaseIsMadeOnlyWhenAllowed(t *testing.T) {
	t.Parallel()
	cfg := newPostgres(t)
	cfg.Database = `not "there" ` + cfg.Database
	if _, err := migrations.OpenPostgres(t.Context(), cfg, false); !errors.Is(err, migrations.ErrNoDatabase) || !strings.Contains(err.Error(), "not ") {
		t.Fatalf("a database that is not there opens: %v", err)
	}
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			p, err := migrations.OpenPostgres(t.Context(), cfg, true)
			if err != nil {
				return err
			}
			return p.Close()
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server := cfg.Copy()
		server.Database = "postgres"
		conn, err := pgx.ConnectConfig(context.Background(), server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "DROP DATABASE "+pgx.Identifier{cfg.Database}.Sanitize()+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
}

func TestProcessesThatMigratePostgresAtOnceDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	cfg := newPostgres(t)
	applied := make([]int, 6)
	var group errgroup.Group
	for i := range applied {
		p := openPostgres(t, cfg)
		group.Go(func() error {
			versions, err := p.Up(t.Context())
			applied[i] = len(versions)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range applied {
		total += n
	}
	if all, err := migrations.PostgresVersions(); err != nil || total != len(all) {
		t.Errorf("applied %v of %d versions: %v", applied, len(all), err)
	}
}

func TestAWaitForAnotherMigrationCanBeGivenUp(t *testing.T) {
	t.Parallel()
	cfg := newPostgres(t)
	holder, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	p := openPostgres(t, cfg)
	// The lock is looked at from outside: it must be the same in every version of the program.
	for _, statement := range []string{"CREATE TABLE public.migration_lock (one boolean PRIMARY KEY CHECK (one))",
		"INSERT INTO public.migration_lock VALUES (true)", "BEGIN", "SELECT FROM public.migration_lock FOR UPDATE"} {
		if _, err := holder.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := p.Up(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another one migrates: %v", err)
	}
	if versions, err := p.Status(t.Context()); err != nil || !versions[0].Pending() {
		t.Errorf("it has not waited: %v, %v", versions, err)
	}
}

func TestThePostgresSchemaIsTheOneInTheGoldenFile(t *testing.T) {
	t.Parallel()
	p := openPostgres(t, newPostgres(t))
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := postgresSchema(t, p)
	golden := filepath.Join("testdata", "postgres.golden.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the schema differs from %s (write it anew with -update):\n%s", golden, got)
	}
}

// postgresSchema describes the schema public.
func postgresSchema(t *testing.T, p *migrations.Postgres) string {
	t.Helper()
	return schemaText(t, p, "public")
}

// schemaText describes the tables, indexes, constraints, triggers and functions of a schema, and who may do what.
func schemaText(t *testing.T, p *migrations.Postgres, schema string) string {
	t.Helper()
	rows, err := p.DB().QueryContext(t.Context(), `
		SELECT line FROM (
			SELECT c.relname, 1 AS place, a.attnum AS number, format('%s.%s %s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
				CASE WHEN a.attnotnull THEN ' not null' ELSE '' END, coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')) AS line
			FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
			LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
			WHERE c.relkind IN ('r', 'p') AND c.relnamespace = $1::regnamespace
			UNION ALL SELECT tablename, 2, 0, indexdef FROM pg_indexes WHERE schemaname = $2
			UNION ALL SELECT conrelid::regclass::text, 3, 0, conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
			WHERE connamespace = $1::regnamespace AND conrelid <> 0
			UNION ALL SELECT tgrelid::regclass::text, 4, 0, pg_get_triggerdef(pg_trigger.oid) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
			WHERE NOT tgisinternal AND c.relnamespace = $1::regnamespace
			UNION ALL SELECT 'zz', 5, 0, format('function %s returns %s%s', oid::regprocedure, prorettype::regtype,
				CASE WHEN prosecdef THEN ' security definer' ELSE '' END) FROM pg_proc WHERE pronamespace = $1::regnamespace
			UNION ALL SELECT 'zzz', 6, 0, format('%s may %s on %s', coalesce(nullif(a.grantee, 0)::regrole::text, 'everybody'),
				string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), c.relname)
			FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = $1::regnamespace AND a.grantee <> c.relowner
			GROUP BY a.grantee, c.relname
			UNION ALL SELECT 'zzz', 7, 0, format('%s may execute %s', coalesce(nullif(a.grantee, 0)::regrole::text, 'everybody'), f.oid::regprocedure)
			FROM pg_proc f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
			WHERE f.pronamespace = $1::regnamespace AND a.grantee <> f.proowner AND f.prorettype <> 'trigger'::regtype
			UNION ALL SELECT 'zzz', 8, 0, format('%s may %s in the schema', a.grantee::regrole, a.privilege_type)
			FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.oid = $1::regnamespace AND a.grantee <> n.nspowner AND $2 <> 'public'
		) AS all_of_it
		WHERE relname <> 'goose_db_version'
		ORDER BY relname, place, number, line COLLATE "C"`, pgx.Identifier{schema}.Sanitize(), schema)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var b strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
