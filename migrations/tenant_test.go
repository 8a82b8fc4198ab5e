package migrations_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

func TestACompanyGetsItsSchemaOnceWhoeverAsksHowOften(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme := d.id("acme")
	got := d.psql(d.owner, fmt.Sprintf(`
		INSERT INTO companies (company_id, name, billing_email) VALUES ('%[1]s', 'Acme', 'billing@acme.test');
		SELECT create_company_schema('%[1]s') = 'tenant_%[1]s';
		SELECT create_company_tables('tenant_%[1]s') IS NOT NULL, create_company_schema(company_id => '%[1]s') = 'tenant_%[1]s';
		SELECT initialize_company_config('%[1]s', 'tenant_%[1]s'), initialize_company_config('%[1]s', 'tenant_%[1]s');
		SELECT config - 'company_id' - 'billing_email' FROM company_config;
		SELECT version, schema_name = 'tenant_%[1]s' FROM tenant_schema_versions WHERE company_id = '%[1]s';
		SELECT tenant_schema_version('%[1]s'), tenant_schema_version('nobody'), migrate_company_schema('%[1]s'), migrate_company_schema('%[1]s', 1);
		SELECT rolcanlogin FROM pg_roles WHERE rolname = 'tenant_%[1]s';
		SELECT drop_company_schema('%[1]s'), drop_company_schema('%[1]s');
		SELECT count(*) FROM pg_roles WHERE rolname = 'tenant_%[1]s';
		SELECT count(*) FROM pg_namespace WHERE nspname = 'tenant_%[1]s';
		SELECT tenant_schema_version('%[1]s');
		SELECT create_company_schema('%[1]s') IS NULL;`, acme))
	want := "t\nt|t\n|\n" +
		`{"max_users": 1, "support_level": "community", "features_enabled": [], "subscription_tier": "free"}` + "\n1|t\n1|0|1|1\nf\n|\n0\n0\n0\nf"
	if got = strings.ReplaceAll(got, "NOTICE:  00000\n", ""); got != want {
		t.Errorf("psql prints\n%s\nwant\n%s", got, want)
	}
}

func TestTheTablesOfACompanyAreThoseOfTheGoldenFile(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme := d.company("acme", "free")
	got := strings.NewReplacer(acme, "ID", d.owner, "OWNER").Replace(schemaText(t, d.tables, "tenant_"+acme))
	golden := filepath.Join("testdata", "tenant.golden.txt")
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
		t.Errorf("the tables differ from %s (write it anew with -update):\n%s", golden, got)
	}
}

func TestWhatIsNoIDIsRefusedByEveryFunctionAndChangesNothing(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	objects := "SELECT count(*) || ' ' || (SELECT count(*) FROM pg_roles WHERE rolname !~ '^[A-Za-z0-9_-]+$') FROM pg_namespace"
	before := d.one("postgres", objects)
	for _, id := range []string{
		`x"; DROP SCHEMA public CASCADE; --`, `x'; DROP SCHEMA public CASCADE; --`, "%I", "", " ", "a b", "a\n", "a.b", "../x", `x"`,
		"\u0430cme", "acm\u00e9", "\uff41cme", "acme\u200b", "acme\u202e", "\u212a", "\u017f", "\u0130", strings.Repeat("x", 51), strings.Repeat("x", 5000),
	} {
		for _, call := range []string{
			"create_company_schema($1)", "create_company_tables('tenant_' || $1)", "initialize_company_config($1, 'tenant_' || $1)",
			"check_storage_quota($1, 1)", "cleanup_old_data_by_tier($1)", "migrate_company_schema($1)", "drop_company_schema($1)",
			"tenant_size($1)", "tenant_user_put($1, 'u', 'e', now())", "tenant_user_remove($1, 'u', now())",
			"seat_users($1, 'free', now(), now(), '{}', 1, now())", "grant_company_schema($1)",
		} {
			_, err := d.tables.DB().ExecContext(t.Context(), "SELECT public."+call, id)
			if err == nil || !strings.Contains(err.Error(), "22023") {
				t.Errorf("%s of %q: %v", call, id, err)
			}
		}
	}
	for _, name := range []string{"public", "pg_catalog", "tenant", "Tenant_x", `tenant_x"; DROP SCHEMA public CASCADE; --`} {
		if _, err := d.tables.DB().ExecContext(t.Context(), "SELECT public.create_company_tables($1)", name); err == nil || !strings.Contains(err.Error(), "22023") {
			t.Errorf("create_company_tables(%q): %v", name, err)
		}
	}
	for _, call := range []string{"create_company_schema(NULL)", "create_company_tables(NULL)", "check_storage_quota(NULL, 1)",
		"initialize_company_config('x', NULL)", "initialize_company_config('x', 'tenant_y')", "check_storage_quota('x', NULL)",
		"check_storage_quota('x', -1)", "check_storage_quota('x', 'NaN')", "check_storage_quota('x', 'infinity')",
		"cleanup_old_data_by_tier('x', -1)"} {
		if _, err := d.tables.DB().ExecContext(t.Context(), "SELECT public."+call); err == nil || !strings.Contains(err.Error(), "22023") {
			t.Errorf("%s: %v", call, err)
		}
	}
	if after := d.one("postgres", objects); after != before {
		t.Errorf("%s schemas and roles, %s before", after, before)
	}
	longest := d.id(strings.Repeat("L", 50-len(d.suffix)))
	if got := d.psql(d.owner, fmt.Sprintf("SELECT create_company_schema('%s')", longest)); got != "tenant_"+longest {
		t.Errorf("the longest id: %s", got)
	}
}

func TestIDsThatDifferInCaseAreDifferentCompanies(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	lower, upper := d.company("acme", "free"), d.company("ACME", "pro")
	execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'low', 'x@x.test', now())", lower),
		fmt.Sprintf("SELECT tenant_user_put('%s', 'high', 'x@x.test', now())", upper))
	for _, c := range []struct{ id, user, tier string }{{lower, "low", "free"}, {upper, "high", "pro"}} {
		got := d.one(d.owner, fmt.Sprintf(`SELECT string_agg(user_id || subscription_tier, ',') FROM "tenant_%s".users`, c.id))
		if got != c.user+c.tier {
			t.Errorf("%s has %s", c.id, got)
		}
	}
	d.as(d.owner, fmt.Sprintf("SELECT drop_company_schema('%s')", upper))
	if got := d.one(d.owner, fmt.Sprintf(`SELECT count(*) FROM "tenant_%s".users`, lower)); got != "1" {
		t.Errorf("without its twin the company has %s users", got)
	}
}

func TestCompaniesThatAreMadeAtOnceDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	var group errgroup.Group
	for i := range 12 {
		id := d.id(fmt.Sprintf("c%d", i/3)) // each by three sessions
		group.Go(func() error {
			var schema string
			err := d.tables.DB().QueryRowContext(t.Context(), "SELECT public.create_company_schema($1)", id).Scan(&schema)
			if err == nil && schema != "tenant_"+id {
				err = fmt.Errorf("the schema of %s is %s", id, schema)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := d.one(d.owner, "SELECT count(*) || ' ' || count(DISTINCT company_id) FROM tenant_schema_versions"); got != "4 4" {
		t.Errorf("versions and companies: %s", got)
	}
}

func TestARoleWithRightsOfItsOwnIsNotTakenForACompanys(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	for i, with := range []string{"SUPERUSER", "CREATEROLE", "CREATEDB", "LOGIN", "BYPASSRLS", "REPLICATION", "IN ROLE " + d.owner} {
		id := d.id(fmt.Sprintf("taken%d", i))
		d.as("postgres", fmt.Sprintf("CREATE ROLE tenant_%s %s", id, with))
		if got := d.psql(d.owner, fmt.Sprintf("SELECT create_company_schema('%s')", id)); got != "ERROR:  42710" {
			t.Errorf("a role that is %s: %s", with, got)
		}
	}
	// One without any may be what a dropped database has left. It may later be allowed to log in.
	id := d.id("left")
	d.as("postgres", fmt.Sprintf("CREATE ROLE tenant_%s", id))
	for _, then := range []string{"ALTER ROLE tenant_%s LOGIN", "REVOKE ALL ON SCHEMA tenant_%s FROM tenant_%[1]s"} {
		if got := d.psql(d.owner, fmt.Sprintf("SELECT create_company_schema('%s')", id)); got != "tenant_"+id {
			t.Errorf("a role without rights: %s", got)
		}
		d.as("postgres", fmt.Sprintf(then, id))
	}
	// What was taken away comes back.
	d.as(d.owner, fmt.Sprintf("SELECT create_company_schema('%s')", id))
	if got := d.psql("tenant_"+id, fmt.Sprintf("SELECT count(*) FROM tenant_%s.users", id)); got != "0" {
		t.Errorf("as the company's role: %s", got)
	}
}

func TestEveryTableAndFunctionOfTheDatabaseIsExplainedInIt(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	d.company("acme", "free")
	if got := d.one(d.owner, `SELECT string_agg(what, ', ') FROM (
		SELECT oid::regclass::text AS what FROM pg_class WHERE relkind = 'r' AND relname <> 'goose_db_version' AND obj_description(oid, 'pg_class') IS NULL
			AND (relnamespace = 'public'::regnamespace OR relnamespace::regnamespace::text LIKE 'tenant%')
		UNION ALL SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prorettype <> 'trigger'::regtype
			AND obj_description(oid, 'pg_proc') IS NULL AND proname NOT IN ('limits_are_complete', 'is_activity_only')) nothing`); got != "" {
		t.Errorf("nothing is said about %s", got)
	}
}

func TestTablesCanBeMadeInASchemaMadeByHand(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme := d.id("acme")
	got := d.psql(d.owner, fmt.Sprintf(`CREATE SCHEMA tenant_%s; SELECT create_company_tables('tenant_%[1]s'); INSERT INTO tenant_%[1]s.users VALUES ('u', 'e')`, acme))
	service := d.psql(d.login("data", "database_service_role"), fmt.Sprintf("SELECT user_id FROM tenant_%s.users", acme))
	// The role comes later.
	d.as(d.owner, fmt.Sprintf("SELECT create_company_schema('%s')", acme))
	own := d.psql(d.login("app", "tenant_"+acme), fmt.Sprintf("SELECT user_id FROM tenant_%s.users", acme))
	if got != "" || service != "u" || own != "u" {
		t.Errorf("it says %q, a data service reads %q, the company %q", got, service, own)
	}
}

func TestASchemaForACompanyMadeByHandHoldsTheUsersItHas(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme := d.id("acme")
	got := d.psql(d.owner, fmt.Sprintf(`
		INSERT INTO companies (company_id, name, billing_email) VALUES ('%[1]s', 'Acme', 'billing@acme.test');
		INSERT INTO subscriptions (company_id, tier) VALUES ('%[1]s', 'pro');
		INSERT INTO user_directory (user_id, company_id, email, created_at) VALUES ('a', '%[1]s', 'x@x.test', '2026-01-01'),
			('b', '%[1]s', 'x@x.test', '2026-01-02'), ('c', '%[1]s', '', '2026-01-03');
		SELECT * FROM seat_users('%[1]s', 'pro', now(), now(), '{}', 2, now());
		SELECT * FROM seat_users('%[1]s', 'pro', now(), now(), '{}', 2, now());
		SELECT tenant_user_put('%[1]s', 'd', 'd@x.test', '2026-01-04');
		SELECT tenant_user_remove('%[1]s', 'd', now());
		SELECT touch_users('{%[1]s}', '{a}', '{2026-02-01}');
		SELECT cleanup_old_data_by_tier('%[1]s'), tenant_size('%[1]s');
		SELECT create_company_schema('%[1]s') IS NULL;
		SELECT user_id, email, subscription_status, subscription_tier, last_activity IS NULL FROM tenant_%[1]s.users ORDER BY 1;`, acme))
	if want := "c|suspended\n\nt\n1\n0|0\nf\na|x@x.test|active|pro|f\nb|unknown:b|active|pro|t\nc|unknown:c|suspended|pro|t"; got != want {
		t.Errorf("psql prints\n%s\nwant\n%s", got, want)
	}
}
