package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"tenantflow/migrations"
)

// withVersions makes companies, and then adds versions of their tables that they do not have yet.
func withVersions(t *testing.T, names string, texts ...string) (d *tenantDB, ids []string) {
	t.Helper()
	d = newTenantDB(t)
	for name := range strings.SplitSeq(names, " ") {
		ids = append(ids, d.company(name, "free"))
	}
	for i, text := range texts {
		if _, err := d.tables.DB().ExecContext(t.Context(), "INSERT INTO tenant_migrations VALUES ($1, $2, $3, 'x')", i+2, fmt.Sprintf("%05d_x.sql", i+2), text); err != nil {
			t.Fatal(err)
		}
	}
	return d, ids
}

// versionsOf shows the version of each company's tables, and the columns that came with the versions from 2 on.
func versionsOf(d *tenantDB) string {
	return d.one(d.owner, `SELECT string_agg(left(company_id, 1) || version || coalesce(columns, ''), ' ' ORDER BY company_id)
		FROM (SELECT company_id, schema_name, max(version) AS version FROM tenant_schema_versions GROUP BY company_id, schema_name) v
		CROSS JOIN LATERAL (SELECT string_agg(attname, '' ORDER BY attname) AS columns FROM pg_attribute
			WHERE attrelid = (quote_ident(schema_name) || '.users')::regclass AND attname ~ '^x.$' AND NOT attisdropped) c`)
}

const (
	addX2 = "ALTER TABLE users ADD x2 int; CREATE INDEX ON users (x2);"
	addX3 = "ALTER TABLE users ADD x3 int; CREATE TABLE notes (id int); GRANT SELECT ON notes TO database_service_role; REVOKE DELETE ON mt5_accounts FROM database_service_role"
)

func TestTenantsAreBroughtToTheNewestVersionWhateverHappensToOneOfThem(t *testing.T) {
	t.Parallel()
	d, ids := withVersions(t, "a b c d e f", addX2, addX3)
	if got := versionsOf(d); got != "a1 b1 c1 d1 e1 f1" {
		t.Fatalf("before: %s", got)
	}
	if s, err := d.tables.TenantStatus(t.Context()); err != nil || s.Companies != 6 || s.Behind != 6 || s.Newest != 3 || len(s.Unrecorded) != 0 {
		t.Errorf("before: %+v, %v", s, err)
	}
	// Something of c is in the way of the second of the two: of c, also the first is undone.
	d.as(d.owner, fmt.Sprintf("CREATE TABLE tenant_%s.notes (i int)", ids[2]))
	results, err := d.tables.MigrateTenants(t.Context(), migrations.TenantMigration{DryRun: true})
	if err != nil || len(results) != 6 || results[2].Err == nil || results[1].To != 3 || versionsOf(d) != "a1 b1 c1 d1 e1 f1" {
		t.Errorf("the dry run: %+v, %v, and leaves %s", results, err, versionsOf(d))
	}
	if got := d.one(d.owner, "SELECT count(*) FROM pg_class WHERE relname = 'notes'"); got != "1" {
		t.Errorf("the dry run leaves %s tables", got)
	}
	var told []string
	results, err = d.tables.MigrateTenants(t.Context(), migrations.TenantMigration{Concurrency: 3, Done: func(r migrations.TenantResult) { told = append(told, r.CompanyID) }})
	if err != nil || len(results) != 6 || len(told) != 6 {
		t.Fatalf("%d results, %d told, %v", len(results), len(told), err)
	}
	for i, r := range results {
		if failed := i == 2; r.CompanyID != ids[i] || r.From != 1 || (r.Err != nil) != failed || failed && (r.To != 1 || !strings.Contains(r.Err.Error(), "42P07")) || !failed && r.To != 3 {
			t.Errorf("%+v", r)
		}
	}
	if got := versionsOf(d); got != "a3x2x3 b3x2x3 c1 d3x2x3 e3x2x3 f3x2x3" {
		t.Errorf("after the failure: %s", got)
	}
	// The cause is removed, and it is run again.
	d.as(d.owner, fmt.Sprintf("DROP TABLE tenant_%s.notes", ids[2]))
	results, err = d.tables.MigrateTenants(t.Context(), migrations.TenantMigration{})
	if err != nil || len(results) != 1 || results[0].Err != nil || results[0].CompanyID != ids[2] {
		t.Errorf("%+v, %v", results, err)
	}
	if got := versionsOf(d); got != "a3x2x3 b3x2x3 c3x2x3 d3x2x3 e3x2x3 f3x2x3" {
		t.Errorf("at the end: %s", got)
	}
	if s, err := d.tables.TenantStatus(t.Context()); err != nil || s.Behind != 0 {
		t.Errorf("at the end: %+v, %v", s, err)
	}
	if got := d.psql(d.login("app", "tenant_"+ids[0]), fmt.Sprintf("SELECT count(*) FROM tenant_%s.notes; DELETE FROM tenant_%[1]s.mt5_accounts", ids[0])); got != "0\n"+refused {
		t.Errorf("a company's role reads a new table, and may no longer delete accounts: %s", got)
	}
	// A company that comes later has all of it at once.
	if got := d.company("g", "free"); d.one(d.owner, "SELECT string_agg(version::text, '' ORDER BY version) FROM tenant_schema_versions WHERE company_id = $1", got) != "123" {
		t.Errorf("a new company: %s", versionsOf(d))
	}
}

func TestNamedTenantsAreMigratedAndNoOthers(t *testing.T) {
	t.Parallel()
	d, ids := withVersions(t, "a b c", addX2)
	results, err := d.tables.MigrateTenants(t.Context(), migrations.TenantMigration{Companies: []string{ids[2], ids[0], "nobody", ids[0]}})
	if err != nil || len(results) != 3 || results[0].To != 2 || results[1].To != 2 || results[2].CompanyID != "nobody" || !errors.Is(results[2].Err, migrations.ErrNoTenant) {
		t.Errorf("%+v, %v", results, err)
	}
	if got := versionsOf(d); got != "a2x2 b1 c2x2" {
		t.Errorf("the companies are at %s", got)
	}
	results, err = d.tables.MigrateTenants(t.Context(), migrations.TenantMigration{Companies: []string{ids[0]}})
	if err != nil || len(results) != 1 || results[0].From != 2 || results[0].To != 2 || results[0].Err != nil {
		t.Errorf("one that has it all: %+v, %v", results, err)
	}
}

func TestATenantMigrationThatIsCutOffIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	d, ids := withVersions(t, "a b c d e f", addX2, addX3)
	// Another session keeps the tables of c in use, so the migration is in the middle of it when it ends.
	holder, err := pgx.Connect(t.Context(), d.dsn(d.owner))
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	if _, err := holder.Exec(t.Context(), fmt.Sprintf("BEGIN; LOCK TABLE tenant_%s.users IN ACCESS SHARE MODE", ids[2])); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan []migrations.TenantResult)
	var failure error
	go func() {
		results, err := d.tables.MigrateTenants(ctx, migrations.TenantMigration{Concurrency: 1})
		failure = err
		done <- results
	}()
	awaitLock(t, d)
	cancel()
	if results := <-done; len(results) != 2 || !errors.Is(failure, context.Canceled) {
		t.Errorf("%+v, %v", results, failure)
	}
	if got := versionsOf(d); got != "a3x2x3 b3x2x3 c1 d1 e1 f1" {
		t.Errorf("it was cut off at %s", got)
	}
	awaitNoLock(t, d)
	// The same when the server itself ends the connection.
	go func() {
		results, err := d.tables.MigrateTenants(t.Context(), migrations.TenantMigration{Concurrency: 1})
		failure = err
		done <- results
	}()
	killed := "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%migrate_company_schema%'"
	awaitLock(t, d)
	if got := d.one("postgres", killed); got != "1" {
		t.Fatalf("%s connections were ended", got)
	}
	if results := <-done; failure != nil || len(results) != 4 || results[0].Err == nil || results[1].Err != nil {
		t.Errorf("after a connection was ended: %+v, %v", results, failure)
	}
	if got := versionsOf(d); got != "a3x2x3 b3x2x3 c1 d3x2x3 e3x2x3 f3x2x3" {
		t.Errorf("after a connection was ended: %s", got)
	}
	if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	results, err := d.tables.MigrateTenants(t.Context(), migrations.TenantMigration{})
	if err != nil || len(results) != 1 || versionsOf(d) != "a3x2x3 b3x2x3 c3x2x3 d3x2x3 e3x2x3 f3x2x3" {
		t.Errorf("at the end: %+v, %v, %s", results, err, versionsOf(d))
	}
}

func TestAConnectionServesNoMoreThanSomeHundredTenants(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	// Bare schemas: the test only counts the connections that visit them.
	execPostgres(t, d.tables, "CREATE TABLE pids (pid int)",
		"DO $$ BEGIN FOR i IN 1..600 LOOP EXECUTE format('CREATE SCHEMA %I', 'tenant_c' || i); END LOOP; END $$",
		"INSERT INTO tenant_schema_versions (company_id, schema_name, version) SELECT 'c' || i, 'tenant_c' || i, 1 FROM generate_series(1, 600) i",
		"INSERT INTO tenant_migrations VALUES (2, '00002_x.sql', 'INSERT INTO public.pids VALUES (pg_backend_pid())', 'x')")
	results, err := d.tables.MigrateTenants(t.Context(), migrations.TenantMigration{Concurrency: 1})
	if err != nil || len(results) != 600 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	if got := d.one(d.owner, "SELECT string_agg(n::text, ' ' ORDER BY n DESC) FROM (SELECT count(*) AS n FROM pids GROUP BY pid) c"); got != "250 250 100" {
		t.Errorf("the connections have served %s companies", got)
	}
}

func TestAnUpgradeOfOneCompanyGoesToTheVersionAskedFor(t *testing.T) {
	t.Parallel()
	d, ids := withVersions(t, "a b", addX2, addX3)
	for _, step := range []struct{ call, prints, want string }{
		{"migrate_company_schema('$', 2)", "2", "a2x2 b1"},
		{"migrate_company_schema('$', 1)", "2", "a2x2 b1"}, // never back
		{"migrate_company_schema('$', 9)", "ERROR:  22023", "a2x2 b1"},
		{"migrate_company_schema('$', 0)", "ERROR:  22023", "a2x2 b1"},
		{"migrate_company_schema('$')", "3", "a3x2x3 b1"},
		{"migrate_company_schema('none')", "ERROR:  3F000", "a3x2x3 b1"},
	} {
		if got := d.psql(d.owner, "SELECT "+strings.ReplaceAll(step.call, "$", ids[0])); got != step.prints || versionsOf(d) != step.want {
			t.Errorf("%s prints %s and leaves %s; want %s and %s", step.call, got, versionsOf(d), step.prints, step.want)
		}
	}
}

func TestAVersionWhoseTextHasChangedIsNotTaken(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	if _, err := d.tables.Up(t.Context()); err != nil {
		t.Fatalf("the same text again: %v", err)
	}
	if s, err := d.tables.TenantStatus(t.Context()); err != nil || s.Newest < 1 || len(s.Unrecorded) != 0 || s.Behind != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	execPostgres(t, d.tables, "UPDATE tenant_migrations SET checksum = 'x' WHERE version = 1")
	_, err := d.tables.Up(t.Context())
	_, statusErr := d.tables.TenantStatus(t.Context())
	for _, err := range []error{err, statusErr} {
		if !errors.Is(err, migrations.ErrTenantVersionChanged) || !strings.Contains(err.Error(), "00001_tables.sql") {
			t.Errorf("with another text: %v", err)
		}
	}
	execPostgres(t, d.tables, "DELETE FROM tenant_migrations")
	if s, err := d.tables.TenantStatus(t.Context()); err != nil || len(s.Unrecorded) != int(s.Newest) {
		t.Errorf("without the texts: %+v, %v", s, err)
	}
	empty := openPostgres(t, newPostgres(t))
	if s, err := empty.TenantStatus(t.Context()); err != nil || s.Newest < 1 || s.Companies != 0 || len(s.Unrecorded) != int(s.Newest) {
		t.Errorf("in an empty database: %+v, %v", s, err)
	}
}

func TestWhenASubscriptionIsDueFollowsFromItsColumns(t *testing.T) {
	t.Parallel()
	p := migratedPostgres(t)
	execPostgres(t, p, "INSERT INTO companies VALUES ('acme', 'Acme', 'a@acme.test')", "INSERT INTO subscriptions (company_id, period_start, period_end) VALUES ('acme', '2026-01-01', '2026-02-01')")
	for _, step := range []struct{ set, due string }{
		{"tier = 'free'", ""},
		{"tier = 'pro'", "02-04"}, // three days after the period's end
		{"period_end = '2026-03-01'", "03-04"},
		{"renewal_until = '2026-03-02'", "03-02"},
		{"period_end = '2026-02-01', renewal_until = NULL", "02-04"},
		{"next_period_start = '2026-02-01', next_period_end = '2026-03-01', next_renewal = '{}'", "02-01"},
		{"next_period_start = NULL, next_period_end = NULL, next_renewal = NULL", "02-04"},
		{"status = 'past_due', grace_until = '2026-02-05'", "02-05"},
		{"pending_tier = 'free'", "02-01"},
		{"grace_until = '2026-01-20'", "01-20"},
		{"pending_tier = NULL, status = 'cancelled'", ""},
		{"status = 'expired', previous_tier = 'pro'", ""},
		{"status = 'active', tier = 'free', pending_tier = 'free'", "02-01"},
	} {
		execPostgres(t, p, "UPDATE subscriptions SET "+step.set)
		var due string
		if err := p.DB().QueryRowContext(t.Context(), "SELECT coalesce(to_char(due_at, 'MM-DD'), '') FROM subscriptions").Scan(&due); err != nil || due != step.due {
			t.Errorf("with %s it is due at %q, want %q: %v", step.set, due, step.due, err)
		}
	}
	for _, refused := range []string{"benefits = '[]'", "anchor_day = 0", "anchor_day = 32", "grace_until = 'infinity'", "previous_tier = 'A B'", "due_at = now()", "period_months = 37", "next_period_end = now()", "expired_term = '[]'"} {
		if _, err := p.DB().ExecContext(t.Context(), "UPDATE subscriptions SET "+refused); err == nil {
			t.Errorf("%s is accepted", refused)
		}
	}
}
