package migrations_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// refused is what psql prints about something that one may not do.
const refused = "ERROR:  42501"

func TestACompanysRoleReachesItsOwnTablesAndNothingElse(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	a, b := d.company("a", "pro"), d.company("b", "pro")
	for _, id := range []string{a, b} {
		execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'u%[1]s', 'u@x.test', now())", id),
			fmt.Sprintf("SELECT initialize_company_config('%s', 'tenant_%[1]s')", id))
	}
	user := d.login("app", "tenant_"+a)
	replace := strings.NewReplacer("$a", a, "$b", b, "$owner", d.owner, "$db", d.admin.Path[1:])

	may := `INSERT INTO tenant_$a.mt5_accounts (account_id, user_id, account_number) VALUES (1, 'u$a', 'n');
		INSERT INTO tenant_$a.trading_positions (user_id, mt5_account_id, symbol, volume, open_price) VALUES ('u$a', 1, 'EURUSD', 1, 1.1) RETURNING position_id;
		UPDATE tenant_$a.trading_positions SET status = 'closed', closed_at = now();
		SET search_path = tenant_$a; SELECT user_id FROM users;
		DELETE FROM trading_positions; DELETE FROM mt5_accounts; SELECT count(*) > 100 FROM pg_class;`
	if got, want := d.psql(user, replace.Replace(may)), "1\nu"+a+"\nt"; got != want {
		t.Errorf("in its own schema psql prints\n%s\nwant\n%s", got, want)
	}

	state := `SELECT md5(string_agg(t::text, ',')) FROM (SELECT user_id, xmin FROM user_directory UNION ALL
		SELECT user_id, xmin FROM tenant_` + a + `.users UNION ALL SELECT user_id, xmin FROM tenant_` + b + `.users UNION ALL
		SELECT company_id, xmin FROM subscriptions UNION ALL SELECT nspname, xmin FROM pg_namespace) t`
	before := d.one("postgres", state)
	for _, statement := range []string{
		// Another company.
		"SELECT * FROM tenant_$b.users", "SELECT count(*) FROM tenant_$b.trading_positions", "SELECT * FROM tenant_$b.users_pkey",
		"INSERT INTO tenant_$b.mt5_accounts VALUES (1, 'u$b', 'n')", "UPDATE tenant_$b.trading_positions SET status = 'x'",
		"DELETE FROM tenant_$b.mt5_accounts", "TRUNCATE tenant_$b.trading_positions", "SELECT nextval('tenant_$b.trading_positions_position_id_seq')",
		"COPY tenant_$b.users TO STDOUT", "BEGIN; LOCK TABLE tenant_$b.users", "SELECT * FROM tenant_$b.trading_positions_position_id_seq",
		// Its own users are written by the service alone, and nothing is changed in form.
		"UPDATE tenant_$a.users SET subscription_tier = 'enterprise'", "INSERT INTO tenant_$a.users VALUES ('x', 'x')",
		"DELETE FROM tenant_$a.users", "TRUNCATE tenant_$a.mt5_accounts", "ALTER TABLE tenant_$a.users ADD x int", "DROP TABLE tenant_$a.mt5_accounts",
		"ALTER SCHEMA tenant_$a RENAME TO tenant_x", "DROP SCHEMA tenant_$a CASCADE", "GRANT SELECT ON tenant_$a.users TO PUBLIC",
		"SELECT setval('tenant_$a.trading_positions_position_id_seq', 1)", "CREATE TRIGGER x AFTER INSERT ON tenant_$a.mt5_accounts EXECUTE FUNCTION public.refuse_change()",
		"CREATE RULE x AS ON INSERT TO tenant_$a.mt5_accounts DO NOTHING", "ALTER TABLE tenant_$a.users ENABLE ROW LEVEL SECURITY",
		// The public tables and functions.
		"SELECT * FROM public.companies", "SELECT * FROM public.user_directory", "SELECT * FROM public.subscriptions", "SELECT * FROM public.company_config",
		"SELECT * FROM public.subscription_tiers", "SELECT * FROM public.changes", "SELECT * FROM public.inbox", "SELECT * FROM public.billing_transactions",
		"SELECT * FROM public.payments", "SELECT * FROM public.audit_log", "SELECT * FROM public.tenant_migrations", "SELECT * FROM public.tenant_schema_versions",
		"UPDATE public.subscriptions SET tier = 'enterprise'", "UPDATE public.tenant_migrations SET up_sql = 'x'", "SELECT nextval('public.change_seq')",
		"SELECT public.check_storage_quota('$a', 1)", "SELECT public.create_company_schema('$a')", "SELECT public.drop_company_schema('$b')",
		"SELECT public.migrate_company_schema('$a')", "SELECT public.tenant_size('$b')", "SELECT public.lock_company('$b')",
		"SELECT public.tenant_user_put('$a', 'x', 'x', now())", "SELECT public.touch_users('{}', '{}', '{}')",
		"BEGIN; SELECT FROM public.company_locks FOR UPDATE", "BEGIN; LOCK TABLE public.company_locks", "BEGIN; LOCK TABLE public.migration_lock",
		"SELECT * FROM public.company_blocks",
		// New objects, in which something could be planted.
		"CREATE TABLE tenant_$a.x (i int)", "CREATE TABLE public.x (i int)", "CREATE TEMP TABLE x (i int)", "CREATE SCHEMA x",
		"CREATE TEMP VIEW companies AS SELECT 1", "CREATE VIEW tenant_$a.x AS SELECT 1", "CREATE SEQUENCE tenant_$a.x", "CREATE TYPE tenant_$a.x AS (i int)",
		"CREATE FUNCTION tenant_$a.now() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE FUNCTION pg_temp.now() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE OPERATOR tenant_$a.= (FUNCTION = pg_catalog.texteq, LEFTARG = text, RIGHTARG = text)", "CREATE DATABASE x", "CREATE ROLE x", "CREATE EXTENSION file_fdw",
		// More rights.
		"SET ROLE tenant_$b", "SET ROLE $owner", "SET ROLE database_service_role", "SET ROLE postgres", "SET SESSION AUTHORIZATION $owner",
		"GRANT tenant_$b TO $owner", "ALTER ROLE tenant_$a CREATEROLE", "ALTER DATABASE $db SET search_path = x", "SELECT pg_read_file('/etc/hosts')",
		"COPY tenant_$a.users TO PROGRAM 'true'", "SELECT * FROM pg_authid", "SELECT lo_import('/etc/hosts')", "SET session_replication_role = replica",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '$owner'",
		// A search path that leads elsewhere.
		"SET search_path = tenant_$b, public; SELECT * FROM users", "SET search_path = public; SELECT * FROM companies",
	} {
		switch got := d.psql(user, "\\set ON_ERROR_STOP on\n"+replace.Replace(statement)); {
		case strings.Contains(got, refused):
		case got == "ERROR:  42P01": // a schema that may not be looked into is passed over in the search path
		case got == "WARNING:  01007": // nothing was granted
		default:
			t.Errorf("%s: %q", statement, got)
		}
	}
	if after := d.one("postgres", state); after != before {
		t.Error("something has changed")
	}
	if got := d.one("postgres", "SELECT count(*) FROM pg_tables WHERE tableowner = $1", user); got != "0" {
		t.Errorf("the company's user owns %s tables", got)
	}
}

func TestTheServiceRoleMayDoWhatDataServicesNeedAndNoMore(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	a, b := d.company("a", "free"), d.company("b", "free")
	user := d.login("data", "database_service_role")
	for _, id := range []string{a, b} {
		execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'u%[1]s', 'u@x.test', now())", id))
		got := d.psql(user, strings.ReplaceAll(`SELECT public.check_storage_quota('$', 1), public.check_storage_quota('$', 100);
			INSERT INTO tenant_$.mt5_accounts (account_id, user_id, account_number) VALUES (1, 'u$', 'n');
			INSERT INTO tenant_$.trading_positions (user_id, mt5_account_id, symbol, volume, open_price) VALUES ('u$', 1, 'EURUSD', 1, 1.1) RETURNING position_id;
			UPDATE tenant_$.trading_positions SET current_price = 2; UPDATE tenant_$.mt5_accounts SET balance = 3;
			SELECT subscription_tier FROM tenant_$.users;
			DELETE FROM tenant_$.trading_positions; DELETE FROM tenant_$.mt5_accounts;`, "$", id))
		if want := "t|f\n1\nfree"; got != want {
			t.Errorf("in the schema of %s psql prints\n%s\nwant\n%s", id, got, want)
		}
	}
	for _, statement := range []string{
		"UPDATE tenant_$.users SET subscription_tier = 'enterprise'", "DELETE FROM tenant_$.users", "INSERT INTO tenant_$.users VALUES ('x', 'x')",
		"TRUNCATE tenant_$.trading_positions", "CREATE TABLE tenant_$.x (i int)", "DROP TABLE tenant_$.mt5_accounts", "ALTER TABLE tenant_$.mt5_accounts ADD x int",
		"CREATE TABLE public.x (i int)", "CREATE TEMP TABLE x (i int)", "SELECT * FROM public.companies", "SELECT * FROM public.subscriptions", "SELECT * FROM public.audit_log",
		"SELECT * FROM public.inbox", "SELECT public.cleanup_old_data_by_tier('$')", "SELECT public.create_company_schema('x$')", "SELECT public.drop_company_schema('$')",
		"SELECT public.tenant_size('$')", "SELECT public.lock_company('$')", "SELECT setval('tenant_$.trading_positions_position_id_seq', 1)",
		"SELECT * FROM public.seat_users('$', 'free', now(), now(), '{}', 1, now())", "SET ROLE tenant_$", "CREATE ROLE x",
	} {
		if got := d.psql(user, strings.ReplaceAll(statement, "$", a)); got != refused {
			t.Errorf("%s: %q", statement, got)
		}
	}
}

func TestAFunctionThatActsAsItsOwnerTakesNothingFromTheCallersSearchPath(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	a := d.company("a", "free")
	user := d.login("data", "database_service_role")
	// As if the data service could create objects after all: what is planted would be called by name or operator.
	d.as("postgres", "CREATE SCHEMA planted", fmt.Sprintf("GRANT USAGE ON SCHEMA planted TO %s", user),
		"CREATE TABLE planted.subscriptions AS SELECT company_id, '{\"storage_mb\": \"unlimited\"}'::jsonb AS limits FROM public.subscriptions",
		"CREATE FUNCTION planted.bad(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$planted as %$$, current_user; END'",
		"CREATE OPERATOR planted.= (FUNCTION = planted.bad, LEFTARG = text, RIGHTARG = text)",
		"CREATE FUNCTION planted.pg_total_relation_size(oid) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'",
		"CREATE FUNCTION planted.quote_ident(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$planted as %$$, current_user; END'",
		fmt.Sprintf("ALTER DATABASE %q SET search_path = planted, pg_catalog, public", d.admin.Path[1:]))
	if got := d.psql(user, fmt.Sprintf("SHOW search_path; SELECT public.check_storage_quota('%s', 1), public.check_storage_quota('%[1]s', 100)", a)); got != "planted, pg_catalog, public\nt|f" {
		t.Errorf("psql prints %q", got)
	}
	// Those that act as their caller do not look there either.
	got := d.psql("postgres", fmt.Sprintf("SELECT public.tenant_size('%s') > 0, public.create_company_schema('%[1]s') = 'x'; "+
		"SELECT public.tenant_user_put('%[1]s', 'u', 'e', now()); SELECT count(*) FROM public.seat_users('%[1]s', 'free', now(), now(), '{}', 1, now()); "+
		"SELECT public.touch_users('{%[1]s}', '{u}', array[now()])", a))
	// The comparison after the call is the session's own, and finds what is planted.
	if !strings.HasPrefix(got, "ERROR:  P0001") || !strings.HasSuffix(got, "0\n1") {
		t.Errorf("psql prints %q", got)
	}
	functions := d.one("postgres", `SELECT string_agg(p.oid::regprocedure::text, ' ') FROM pg_proc p WHERE pronamespace = 'public'::regnamespace
		AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp'] AND proname NOT IN ('limits_are_complete', 'is_activity_only')`)
	if functions != "" {
		t.Errorf("functions without a search path of their own: %s", functions)
	}
}

func TestADumpOfOneCompanyRestoresElsewhere(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	a := d.company("Acme-1", "pro")
	execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'u' || i, 'u' || i || '@x.test', now()) FROM generate_series(1, 20) i", a),
		fmt.Sprintf(`INSERT INTO "tenant_%s".mt5_accounts (account_id, user_id, account_number) SELECT i, 'u' || i, i FROM generate_series(1, 20) i`, a),
		fmt.Sprintf(`INSERT INTO "tenant_%s".trading_positions (user_id, mt5_account_id, symbol, volume, open_price) SELECT 'u1', 1, 'EURUSD', i, i FROM generate_series(1, 500) i`, a))
	content := fmt.Sprintf(`SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) || count(*) FROM (SELECT u::text FROM "tenant_%s".users u UNION ALL
		SELECT a::text FROM "tenant_%[1]s".mt5_accounts a UNION ALL SELECT p::text FROM "tenant_%[1]s".trading_positions p) t`, a)
	dump := exec.CommandContext(t.Context(), filepath.Join(d.bin, "pg_dump"), "-x", "-O", fmt.Sprintf(`--schema="tenant_%s"`, a), d.dsn(d.owner))
	text, err := dump.Output()
	if err != nil {
		t.Fatal(err)
	}
	other := newTenantDB(t) // another database, of another user
	if got := other.psql(other.owner, "\\set ON_ERROR_STOP on\n"+string(text)); strings.Contains(got, "ERROR") {
		t.Fatalf("restored elsewhere: %s", got)
	}
	if got, want := other.one(other.owner, content), d.one(d.owner, content); got != want || !strings.HasSuffix(want, "540") {
		t.Errorf("restored rows are %s, want %s", got, want)
	}
	// Also the sequence.
	if got := other.psql(other.owner, fmt.Sprintf(`INSERT INTO "tenant_%s".trading_positions (user_id, symbol, volume, open_price) VALUES ('u2', 'X', 1, 1) RETURNING position_id`, a)); got != "501" {
		t.Errorf("the next position is %s", got)
	}
}

func TestTheAuditLogIsOnlyAddedTo(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	execPostgres(t, d.tables, "INSERT INTO audit_log VALUES ('c', 1, 's', 'i', 't', 'created', now(), '{}', '', 'h')")
	for _, user := range []string{d.owner, "postgres"} {
		for _, statement := range []string{"UPDATE audit_log SET action = 'x'", "UPDATE audit_log SET action = 'x' WHERE false", "DELETE FROM audit_log",
			"TRUNCATE audit_log", "INSERT INTO audit_log VALUES ('c', 1, 's', 'i', 't', 'x', now(), '{}', '', 'h') ON CONFLICT (company_id, seq) DO UPDATE SET action = 'x'"} {
			if got := d.psql(user, statement); got != refused {
				t.Errorf("%s as %s: %s", statement, user, got)
			}
		}
	}
	if got := d.one(d.owner, "SELECT string_agg(action, ',') FROM audit_log"); got != "created" {
		t.Errorf("it holds %s", got)
	}
}

func TestAUserWhoOwnsNothingButTheTablesCanDoAllOfIt(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	// A second database, which another user owns: the service's user may create in it.
	other := newTenantDB(t)
	name := other.admin.Path[1:]
	other.as("postgres", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public", fmt.Sprintf("GRANT CREATE ON DATABASE %q TO %s", name, d.owner),
		fmt.Sprintf("GRANT CREATE, USAGE ON SCHEMA public TO %s", d.owner))
	cfg, err := pgx.ParseConfig(other.dsn(d.owner))
	if err != nil {
		t.Fatal(err)
	}
	tables := openPostgres(t, cfg)
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	execPostgres(t, tables, freeTier)
	acme := d.id("acme")
	got := other.psql(d.owner, fmt.Sprintf(`INSERT INTO companies (company_id, name, billing_email) VALUES ('%[1]s', 'Acme', 'e');
		SELECT create_company_schema('%[1]s') = 'tenant_%[1]s'; SELECT tenant_user_put('%[1]s', 'u', 'e', now()); SELECT count(*) FROM tenant_%[1]s.users;
		SELECT drop_company_schema('%[1]s')`, acme))
	if got = strings.ReplaceAll(got, "NOTICE:  00000", ""); strings.TrimSpace(got) != "t\n\n1" {
		t.Errorf("psql prints %q", got)
	}
}
