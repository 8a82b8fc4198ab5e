package migrations_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/migrations"
)

// A tenantDB is a migrated database that belongs to a user who is no administrator, as the service's should be. Roles
// are shared by all databases of the server, so the ids of its companies end in a suffix of the test's own.
type tenantDB struct {
	t      *testing.T
	tables *migrations.Postgres
	admin  *url.URL // as administrator
	owner  string   // the service's user
	suffix string
	bin    string // where psql and pg_dump are
}

func newTenantDB(t *testing.T) *tenantDB {
	t.Helper()
	d := &tenantDB{t: t, suffix: "_" + strings.ToLower(rand.Text()[:10])}
	d.owner = "svc" + d.suffix
	// Before the database is made, so that it is dropped first: roles with rights in it can't be.
	server := enginetest.SharedPostgres(t).DSN()
	t.Cleanup(func() { d.dropRoles(server) })
	admin, err := url.Parse(enginetest.NewPostgresDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	d.admin = admin
	d.as("postgres", fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE", d.owner), fmt.Sprintf("ALTER DATABASE %q OWNER TO %s", admin.Path[1:], d.owner))
	d.bin = d.one("postgres", "SELECT setting FROM pg_config WHERE name = 'BINDIR'")
	cfg, err := pgx.ParseConfig(d.dsn(d.owner))
	if err != nil {
		t.Fatal(err)
	}
	d.tables = openPostgres(t, cfg)
	if _, err := d.tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	execPostgres(t, d.tables, freeTier)
	return d
}

// dropRoles removes the roles of the test.
func (d *tenantDB) dropRoles(server string) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT quote_ident(rolname) FROM pg_roles WHERE right(rolname, $1) = $2", len(d.suffix), d.suffix)
	if err != nil {
		d.t.Fatal(err)
	}
	roles, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		d.t.Fatal(err)
	}
	for _, role := range roles {
		if _, err := conn.Exec(ctx, "DROP ROLE "+role); err != nil {
			d.t.Error(err)
		}
	}
}

// id makes the id of a company of the test's own.
func (d *tenantDB) id(name string) string { return name + d.suffix }

// dsn is the address of the database for a user.
func (d *tenantDB) dsn(user string) string {
	u := *d.admin
	u.User = url.User(user)
	return u.String()
}

// as runs statements as a user, each for itself.
func (d *tenantDB) as(user string, statements ...string) {
	d.t.Helper()
	conn, err := pgx.Connect(d.t.Context(), d.dsn(user))
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, s := range statements {
		if _, err := conn.Exec(d.t.Context(), s); err != nil {
			d.t.Fatalf("as %s: %s: %v", user, s, err)
		}
	}
}

// one reads a single value as a user.
func (d *tenantDB) one(user, query string, args ...any) string {
	d.t.Helper()
	conn, err := pgx.Connect(d.t.Context(), d.dsn(user))
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var value *string
	if err := conn.QueryRow(d.t.Context(), "SELECT ("+query+")::text", args...).Scan(&value); err != nil {
		d.t.Fatalf("as %s: %s: %v", user, query, err)
	}
	if value == nil {
		return ""
	}
	return *value
}

// psql runs statements with the program psql, as a user, and returns what it prints: unaligned rows, then the errors with
// their SQLSTATE.
func (d *tenantDB) psql(user, statements string) string {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), filepath.Join(d.bin, "psql"), "-XqAt", "-v", "VERBOSITY=sqlstate", d.dsn(user))
	cmd.Stdin = strings.NewReader(statements)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var failed *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &failed) {
		d.t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

// company registers a company with a subscription and a schema, and returns its id.
func (d *tenantDB) company(name, tier string) string {
	d.t.Helper()
	id := d.id(name)
	execPostgres(d.t, d.tables,
		fmt.Sprintf("INSERT INTO companies (company_id, name, billing_email) VALUES ('%s', '%[1]s', '%[1]s@x.test')", id),
		fmt.Sprintf("INSERT INTO subscriptions (company_id, tier) VALUES ('%s', '%s')", id, tier),
		fmt.Sprintf("SELECT public.create_company_schema('%s')", id))
	return id
}

// login makes a user who is a member of a role, and returns its name.
func (d *tenantDB) login(name, role string) string {
	d.t.Helper()
	user := name + d.suffix
	d.as("postgres", fmt.Sprintf("CREATE ROLE %s LOGIN IN ROLE %q", user, role))
	return user
}

// awaitLock waits until a session waits for a lock in the database.
func awaitLock(t *testing.T, d *tenantDB) {
	t.Helper()
	awaitWaiting(t, d, true)
}

// awaitNoLock waits until no session does any more: a server notices late that a client has given up.
func awaitNoLock(t *testing.T, d *tenantDB) {
	t.Helper()
	awaitWaiting(t, d, false)
}

func awaitWaiting(t *testing.T, d *tenantDB, waiting bool) {
	t.Helper()
	enginetest.Await(t, fmt.Sprintf("a session waits for a lock: %t", waiting), func() bool {
		return (d.one("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") != "0") == waiting
	})
}
