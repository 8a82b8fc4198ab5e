package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/migrations"
	"tenantflow/sinks/postgres"
)

// grantedPostgres is a server with the logins of deploy/grants/postgres.sql, migrated by the one and granted to the other.
type grantedPostgres struct {
	admin            *pgx.Conn
	service, migrate string // DSNs
}

func newGrantedPostgres(t *testing.T) *grantedPostgres {
	t.Helper()
	server := enginetest.Postgres(t) // its own: roles belong to the whole server
	text := readFile(t, "grants/postgres.sql")
	as := func(user, database string) string {
		dsn, err := url.Parse(server.DSN())
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			dsn.User = url.User(user)
		}
		dsn.Path = "/" + database
		return dsn.String()
	}
	// The file says in its head how logins and database are made.
	administrator := connect(t, as("", "postgres"))
	made := 0
	for line := range strings.Lines(text) {
		if statement, ok := strings.CutPrefix(line, "--   "); ok {
			statement = strings.Replace(statement, "DATABASE tenantflow ", "DATABASE granted ", 1) // one of that name is there
			if _, err := administrator.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
			made++
		}
	}
	if made != 3 {
		t.Fatalf("%d statements in the head of the file", made)
	}
	g := &grantedPostgres{service: as("tenantflow", "granted"), migrate: as("tenantflow_migrate", "granted"), admin: connect(t, as("", "granted"))}
	cfg, err := pgx.ParseConfig(g.migrate)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := migrations.OpenPostgres(t.Context(), cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	defer tables.Close()
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(t, g.migrate).SyncTiers(t.Context(), tier.Default()); err != nil {
		t.Fatal(err)
	}
	owner := connect(t, g.migrate)
	for range 2 { // it is run after every migration
		if _, err := owner.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func openStore(t *testing.T, dsn string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// denied reports whether Postgres has refused something for want of a right.
func denied(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "42501"
}

// The life of a company, from its registration to its purge.
func TestGrants_ServiceLivesOnThem(t *testing.T) {
	t.Parallel()
	g := newGrantedPostgres(t)
	store := openStore(t, g.service)
	tenants := store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()}), Wait: time.Hour})
	clock := time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)
	// A schema that another login has made is the trouble of that company alone.
	if _, err := g.admin.Exec(t.Context(), "CREATE SCHEMA tenant_acme"); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct{ eventType, data, want string }{
		{events.TypeCompanyRegistered, `"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"u1","email":"u1@acme.example"}`, events.TypeCompanyRejected},
		{events.TypeCompanyRegistered, `"name":"Acme","billing_email":"pay@acme.example","initial_user":{"user_id":"u1","email":"u1@acme.example"}`, events.TypeCompanyCreated},
		{events.TypeUpgradeRequested, `"new_tier":"pro","payment":{"payment_id":"p1"}`, events.TypeUpgraded},
		{events.TypeUserAdded, `"user_id":"u2","email":"u2@acme.example"`, events.TypeUserProvisioned},
		{events.TypePaymentReceived, `"payment_id":"p1","amount_minor":4900,"currency":"USD","paid_at":"2026-01-31T10:30:00Z"`, events.TypePaymentRecorded},
		{events.TypeUserRemoved, `"user_id":"u2"`, events.TypeUserDeprovisioned},
		{events.TypeCompanyClosed, `"purge":true`, events.TypeCompanyArchived},
	} {
		clock = clock.Add(time.Hour)
		e := &events.Event{Key: "acme", Envelope: events.Envelope{
			Source: "/test", ID: fmt.Sprint(i), Type: step.eventType, Time: clock, Data: []byte(`{"company_id":"acme",` + step.data + "}"),
		}}
		done, err := tenants.Apply(t.Context(), e, postgres.Place{Offset: int64(i), Appended: time.Now()})
		if err != nil {
			t.Fatalf("%s: %v", step.eventType, err)
		}
		var got []string
		for _, one := range done {
			for _, r := range one.Results {
				if r.Event != nil {
					got = append(got, r.Event.Type)
				}
			}
		}
		if !slices.Contains(got, step.want) {
			t.Errorf("%s leads to %q, want %s", step.eventType, got, step.want)
		}
		if err := tenants.MarkPublished(t.Context(), done); err != nil {
			t.Fatal(err)
		}
		if step.want == events.TypeCompanyRejected {
			if _, err := g.admin.Exec(t.Context(), "DROP SCHEMA tenant_acme"); err != nil {
				t.Fatal(err)
			}
		}
		// A later version adds a table, which belongs to the login that migrates.
		if step.eventType == events.TypeUpgradeRequested {
			if _, err := connect(t, g.migrate).Exec(t.Context(), "ALTER TABLE tenant_acme.users ADD COLUMN later int; CREATE TABLE tenant_acme.later (x int)"); err != nil {
				t.Errorf("a later version: %v", err)
			}
			if _, err := connect(t, g.service).Exec(t.Context(), "INSERT INTO tenant_acme.later VALUES (1)"); err != nil {
				t.Errorf("a table of a later version: %v", err)
			}
		}
	}
	slot := time.Now().Truncate(time.Hour)
	if taken, err := store.BeginSlot(t.Context(), "verify", slot, time.Minute); err != nil || !taken {
		t.Errorf("a slot: %t, %v", taken, err)
	}
	if err := store.FinishSlot(t.Context(), "verify", slot, true, nil); err != nil {
		t.Error(err)
	}
	if err := store.RegisterJobs(t.Context(), map[string]string{events.JobDrift: "hour"}); err != nil {
		t.Error(err)
	}
	due := slot.UTC().Add(time.Hour)
	decide := func(postgres.JobState) postgres.JobPlan {
		return postgres.JobPlan{To: due, Due: []time.Time{due}, Before: due}
	}
	if _, _, err := store.PlanJob(t.Context(), events.JobDrift, decide); err != nil {
		t.Error(err)
	}
	if queued, err := store.QueueSlots(t.Context(), []events.Slot{{Job: events.JobDrift, At: due}}); err != nil || len(queued) != 1 {
		t.Errorf("a slot of the schedule: %v, %v", queued, err)
	}
	if err := tenants.CheckPartitions(t.Context(), events.TopicCompany, 8); err != nil {
		t.Error(err)
	}
}

func TestGrants_ServiceCantRewriteHistory(t *testing.T) {
	t.Parallel()
	conn := connect(t, newGrantedPostgres(t).service)
	for _, statement := range []string{
		"UPDATE audit_log SET action = ''", "DELETE FROM audit_log", "TRUNCATE audit_log", "ALTER TABLE audit_log DISABLE TRIGGER ALL", "DELETE FROM billing_transactions",
		"UPDATE subscription_tiers SET price_minor = 0", "UPDATE tenant_migrations SET up_sql = ''", "UPDATE user_memberships SET company_id = ''", "DELETE FROM companies",
		"DROP TABLE payments", "CREATE TABLE public.mine (x int)", "CREATE TEMPORARY TABLE mine (x int)", "CREATE DATABASE mine", "ALTER ROLE tenantflow SUPERUSER",
	} {
		if _, err := conn.Exec(t.Context(), statement); !denied(err) {
			t.Errorf("%s: got %v, want it refused", statement, err)
		}
	}
}

// inCode are the rights that no file shows: statements within Go code or within the functions of the migrations need them.
var inCode = map[string]string{
	"INSERT ON companies":           "registration",
	"INSERT ON subscription_events": "each change of a subscription",
	"INSERT ON user_directory":      "tenant_user_put", "UPDATE ON user_directory": "tenant_user_put, touch_users", "DELETE ON user_directory": "tenant_user_remove, purge",
	"INSERT ON tenant_schema_versions": "migrate_company_schema", "DELETE ON tenant_schema_versions": "drop_company_schema",
	"SELECT ON company_locks": "lock_company", "INSERT ON company_locks": "lock_company", "UPDATE ON company_locks": "lock_company, by FOR UPDATE",
	"DELETE ON company_config": "purge", "DELETE ON subscriptions": "purge",
	"DELETE ON company_blocks": "a company that can go on", "DELETE ON due_events": "a due event that is applied", "DELETE ON inbox": "a due event without effect",
	"UPDATE ON business_reports": "that one is published",
	"DELETE ON usage_voids":      "a purge", "DELETE ON recommendations": "a purge, and old ones", "DELETE ON forecasts": "old ones",
	"SELECT ON replay_key": "what replays are proved by",
}

// Every statement that is a file may run, and no right is there that nothing needs.
func TestGrants_AreWhatStatementsNeed(t *testing.T) {
	t.Parallel()
	g := newGrantedPostgres(t)
	var explain []string // of every statement of the service
	for _, folder := range []string{"../sinks/postgres/queries", "../sinks/postgres", "../internal/task/sql"} {
		files, err := filepath.Glob(filepath.Join(folder, "*.sql"))
		if err != nil || len(files) < 10 {
			t.Fatalf("%s: %d statements, %v", folder, len(files), err)
		}
		for _, file := range files {
			if filepath.Base(file) == "tiers_write.sql" {
				continue // migrate's
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), "%s.") {
				continue // about a company's own schema, which belongs to the service
			}
			name := strings.TrimSuffix(filepath.Base(file), ".sql")
			statement, err := g.admin.Prepare(t.Context(), name, string(text))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			call := "EXPLAIN EXECUTE " + pgx.Identifier{name}.Sanitize()
			var values []string
			for _, oid := range statement.ParamOIDs {
				value := "NULL"
				switch oid {
				case pgtype.TextOID:
					value = "'acme'" // the planner calls functions that take an id
				case pgtype.BoolOID:
					value = "true" // the planner drops what is read only where an unknown condition holds, and with it the right to read it
				}
				values = append(values, value)
			}
			if len(values) > 0 {
				call += "(" + strings.Join(values, ", ") + ")"
			}
			explain = append(explain, call)
		}
	}
	// refused returns the first statement that the service may not run once something was taken away.
	refused := func(without string) string {
		tx, err := g.admin.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, err := tx.Exec(t.Context(), without+"; SET LOCAL ROLE tenantflow"); err != nil {
			t.Fatalf("%s: %v", without, err)
		}
		for _, call := range explain {
			if _, err := tx.Exec(t.Context(), call); denied(err) {
				return call + ": " + err.Error()
			} else if err != nil {
				t.Fatalf("%s: %v", call, err)
			}
		}
		return ""
	}
	if call := refused("SELECT 1"); call != "" {
		t.Fatalf("the service may not run %s", call)
	}
	rows, err := g.admin.Query(t.Context(), "SELECT privilege_type || ' ON ' || table_name FROM information_schema.role_table_grants WHERE grantee = 'tenantflow' AND table_schema = 'public' ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	rights, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(rights) < 40 {
		t.Fatalf("%d rights, %v", len(rights), err)
	}
	left := maps.Clone(inCode)
	for _, right := range rights {
		needed := refused("REVOKE "+right+" FROM tenantflow") != ""
		if _, known := left[right]; needed == known {
			t.Errorf("%s: needed by a file: %t, in the list of those that code needs: %t", right, needed, known)
		}
		delete(left, right)
	}
	if len(left) > 0 {
		t.Errorf("not granted: %v", left)
	}
}
