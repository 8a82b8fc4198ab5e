package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
)

// companies makes companies with a schema in a database of the test's own. Their ids end in a suffix of the test's own,
// because the roles that come with them are the server's.
func companies(t *testing.T, names ...string) (environ []string, exec func(statement string), ids []string) {
	t.Helper()
	suffix := "_" + strings.ToLower(rand.Text()[:10])
	dsn := postgrestest.New(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	exec = func(statement string) {
		t.Helper()
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	t.Cleanup(func() {
		for _, id := range ids {
			exec(fmt.Sprintf("SELECT drop_company_schema('%s')", id))
		}
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, name := range names {
		id := name + suffix
		exec(fmt.Sprintf("INSERT INTO companies (company_id, name, billing_email) VALUES ('%s', 'The %s', 'billing@x.test')", id, name))
		exec(fmt.Sprintf("INSERT INTO subscriptions (company_id, tier) VALUES ('%s', 'pro')", id))
		exec(fmt.Sprintf("SELECT create_company_schema('%s')", id))
		exec(fmt.Sprintf("SELECT tenant_user_put('%s', 'u-%[1]s', 'u@x.test', now())", id))
		ids = append(ids, id)
	}
	return []string{"TENANTFLOW_POSTGRES_DSN=" + dsn}, exec, ids
}

func TestTenantListShowsCompaniesPageByPage(t *testing.T) {
	t.Parallel()
	environ, exec, ids := companies(t, "a", "b")
	exec("INSERT INTO companies (company_id, name, billing_email) SELECT 'hand-' || to_char(i, 'FM000'), 'x', 'e' FROM generate_series(1, 250) i")
	list := func(args ...string) tenantList {
		t.Helper()
		out, errOut, code := tenantflow(t, environ, append([]string{"tenant", "ls", "-o", "json"}, args...)...)
		var l tenantList
		if err := json.Unmarshal([]byte(out), &l); err != nil || code != exitDone {
			t.Fatalf("%v (exit code %d): %v\n%s%s", args, code, err, out, errOut)
		}
		return l
	}
	if l := list("--limit", "1", "--size"); len(l.Tenants) != 1 || l.Next != ids[0] || l.Tenants[0].Tier != "pro" || l.Tenants[0].Users != 1 ||
		l.Tenants[0].Version != 1 || l.Tenants[0].Size == nil || *l.Tenants[0].Size < 1<<16 {
		t.Errorf("%+v", l)
	}
	if l := list(); len(l.Tenants) != 100 || l.Next != "hand-098" || l.Tenants[5].Size != nil || l.Tenants[5].Version != 0 {
		t.Errorf("%d companies, next %s", len(l.Tenants), l.Next)
	}
	if l := list("--after", "hand-098", "--limit", "152"); len(l.Tenants) != 152 || l.Next != "" {
		t.Errorf("%d companies, next %s", len(l.Tenants), l.Next)
	}
	if l := list("--limit", "0"); len(l.Tenants) != 252 || l.Next != "" {
		t.Errorf("%d companies, next %s", len(l.Tenants), l.Next)
	}
	if l := list("--after", "z"); len(l.Tenants) != 0 || l.Next != "" {
		t.Errorf("%+v", l)
	}
	out, _, code := tenantflow(t, environ, "tenant", "ls", "--limit", "3", "--size")
	if code != exitDone || !regexp.MustCompile(ids[1]+` +active +pro +active +1 +1 +0\.\d MB`).MatchString(out) ||
		!regexp.MustCompile(`hand-001 +active +- +- +0 +0 +0\.0 MB\n\.\.\. +go on with --after hand-001`).MatchString(out) {
		t.Errorf("as a table (exit code %d):\n%s", code, out)
	}
}

func TestTenantShowTellsOneCompanyWhole(t *testing.T) {
	t.Parallel()
	environ, exec, ids := companies(t, "acme")
	exec("INSERT INTO company_heads SELECT company_id, '2026-11-01T10:00:00Z', 7, 'hash' FROM companies")
	exec("INSERT INTO companies (company_id, name, billing_email) VALUES ('bare', 'Bare', 'e@x.test')")
	exec("INSERT INTO company_blocks (company_id, reason, detail, blocked_by, since, next_try) VALUES ('bare', 'lock', 'too long', 'app (pid 7)', '2026-11-01T10:00:00Z', now())")
	exec("INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint) SELECT '/s', n, 'company.user_removed.v1', 'bare', 'waiting', '' FROM generate_series(1, 3) AS n")
	exec("INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, fault) VALUES ('/s', 'x', 'company.user_removed.v1', 'bare', 'held', '', 'unreadable')")
	out, errOut, code := tenantflow(t, environ, "tenant", "show", ids[0], "-o", "json")
	var got shownTenant
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitDone {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, errOut)
	}
	if got.CompanyID != ids[0] || got.Tier != "pro" || got.Users != 1 || *got.Schema != "tenant_"+ids[0] || got.Version != got.Newest || *got.AuditSeq != 7 ||
		*got.PriceMinor != 4900 || !strings.Contains(string(got.Limits), "retention_days") || got.PeriodEnd == nil || *got.Size < 1<<16 ||
		got.Blocked != nil || got.Waiting+got.Faulty != 0 {
		t.Errorf("%s", out)
	}
	for id, lines := range map[string][]string{
		ids[0]: {`name +The acme\n`, `tier +pro\n`, `price +4900 minor units USD\n`, `users +1, 0 of them suspended\n`, `schema +tenant_` + ids[0] + `\n`,
			`version +1 of 1\n`, `audit log +7 rows\n`, `last event +2026-11-01T10:00:00Z\n`, `limits +daily_api_calls 50000, .*storage_mb 10240\n`},
		"bare": {`tier +-\n`, `schema +-\n`, `last event +-\n`, `can't go on +since 2026-11-01T10:00:00Z \(lock\): too long\n`, `blocked by +app \(pid 7\)\n`,
			`set aside +3 events\n`, `faults +1 rows of the inbox\n`},
	} {
		out, errOut, code := tenantflow(t, environ, "tenant", "show", id)
		for _, line := range lines {
			if code != exitDone || !regexp.MustCompile(line).MatchString(out) {
				t.Errorf("nothing like %q (exit code %d):\n%s%s", line, code, out, errOut)
			}
		}
	}
}

func TestTenantMigrateGoesOnAfterACompanyThatFails(t *testing.T) {
	t.Parallel()
	environ, exec, ids := companies(t, "a", "b", "c")
	migrate := func(args ...string) (map[string]string, int) {
		t.Helper()
		out, errOut, code := tenantflow(t, environ, append([]string{"tenant", "migrate", "-o", "json"}, args...)...)
		var run tenantRun
		if err := json.Unmarshal([]byte(out), &run); err != nil {
			t.Fatalf("%v: %v\n%s%s", args, err, out, errOut)
		}
		states := map[string]string{}
		for _, c := range run.Tenants {
			states[c.CompanyID[:1]] = c.State + " " + strings.Join(c.Applied, ",")
		}
		return states, code
	}
	if got, code := migrate(); code != exitDone || len(got) != 0 {
		t.Errorf("with nothing to do: %v, exit code %d", got, code)
	}
	exec("INSERT INTO tenant_migrations VALUES (2, '00002_x.sql', 'CREATE TABLE x (i int)', 'x'), (3, '00003_y.sql', 'CREATE TABLE y (i int)', 'x')")
	exec(fmt.Sprintf("CREATE TABLE tenant_%s.y (i int)", ids[1]))
	const both = "00002_x.sql,00003_y.sql"
	for _, step := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"--dry-run"}, "map[a:would be migrated " + both + " b:failed  c:would be migrated " + both + "]", exitFailed},
		{[]string{"--company", ids[0]}, "map[a:migrated " + both + "]", exitDone},
		{[]string{"--company", ids[0]}, "map[a:up to date ]", exitDone},
		{[]string{"--company", "nobody"}, "map[n:failed ]", exitFailed},
		{nil, "map[b:failed  c:migrated " + both + "]", exitFailed},
	} {
		if got, code := migrate(step.args...); fmt.Sprint(got) != step.want || code != step.code {
			t.Errorf("%v: %v and exit code %d, want %s and %d", step.args, got, code, step.want, step.code)
		}
	}
	out, errOut, code := tenantflow(t, environ, "tenant", "migrate")
	if code != exitFailed || !regexp.MustCompile(ids[1]+` +failed +1 +1 +migrate company `+ids[1]+`: .*already exists`).MatchString(out) || !strings.Contains(errOut, "1 of 1 companies could not be migrated") {
		t.Errorf("as a table (exit code %d):\n%s%s", code, out, errOut)
	}
	exec(fmt.Sprintf("DROP TABLE tenant_%s.y", ids[1]))
	if got, code := migrate("--concurrency", "1"); code != exitDone || got["b"] != "migrated "+both {
		t.Errorf("when the cause is removed: %v, exit code %d", got, code)
	}
}

func TestMigrateBringsCompaniesUpToDateAsWell(t *testing.T) {
	t.Parallel()
	environ, exec, ids := companies(t, "a", "b")
	environ = append(environ, ownStores(t)[:4]...) // all but Postgres
	migrate := func(args ...string) (migratedTenants, string, int) {
		t.Helper()
		out, errOut, code := tenantflow(t, environ, append([]string{"migrate", "-o", "json"}, args...)...)
		var found migrated
		if err := json.Unmarshal([]byte(out), &found); err != nil || found.Postgres == nil || found.Postgres.Tenants == nil {
			t.Fatalf("%v: %v\n%s%s", args, err, out, errOut)
		}
		return *found.Postgres.Tenants, errOut, code
	}
	if got, _, code := migrate(); code != exitDone || got.State != "applied" || got.Companies != 2 {
		t.Errorf("exit code %d, %+v", code, got)
	}
	exec("INSERT INTO tenant_migrations VALUES (2, '00002_x.sql', 'CREATE TABLE x (i int)', 'x')")
	exec(fmt.Sprintf("CREATE TABLE tenant_%s.x (i int)", ids[0]))
	if got, errOut, code := migrate("--status"); code != exitFailed || got.State != "pending" || got.Behind != 2 || got.Version != 2 || !strings.Contains(errOut, "tables of 2 companies are behind") {
		t.Errorf("exit code %d, %+v\n%s", code, got, errOut)
	}
	if got, errOut, code := migrate(); code != exitFailed || got.State != "failed" || got.Behind != 1 || got.Migrated != 1 || len(got.Failed) != 1 || !strings.Contains(errOut, "1 companies could not be migrated") {
		t.Errorf("exit code %d, %+v\n%s", code, got, errOut)
	}
	exec(fmt.Sprintf("DROP TABLE tenant_%s.x", ids[0]))
	if got, _, code := migrate(); code != exitDone || got.State != "migrated" || got.Behind != 0 || got.Migrated != 1 {
		t.Errorf("exit code %d, %+v", code, got)
	}
	out, _, code := tenantflow(t, environ, "migrate", "--status")
	if code != exitDone || !regexp.MustCompile(`postgres +tables of companies +applied +database \w+, version 2, 2 companies\n`).MatchString(out) {
		t.Errorf("as a table (exit code %d):\n%s", code, out)
	}
	exec("DELETE FROM tenant_migrations")
	if got, errOut, code := migrate("--status"); code != exitFailed || got.State != "pending" || !strings.Contains(errOut, "version 1 of the companies' tables is pending") {
		t.Errorf("without the texts: exit code %d, %+v\n%s", code, got, errOut)
	}
}

func TestTenantCommandsRefuseWhatCanNotBe(t *testing.T) {
	t.Parallel()
	environ, _, _ := companies(t)
	empty := ownStores(t)[4:]
	for _, c := range []struct {
		environ []string
		args    string
		code    int
		says    string
	}{
		{nil, "tenant ls", exitInvalid, "TENANTFLOW_POSTGRES_DSN: it is not set"},
		{environ, "tenant ls --limit -1", exitInvalid, "negative"},
		{environ, "tenant sl", exitInvalid, `did you mean "ls"?`},
		{environ, "tenant show", exitInvalid, "takes one company id"},
		{environ, "tenant show a b", exitInvalid, "takes one company id"},
		{environ, "tenant show x;y", exitInvalid, "is no company id"},
		{environ, "tenant show nobody", exitFailed, "there is no such company"},
		{environ, "tenant migrate --company é", exitInvalid, "is no company id"},
		{environ, "tenant migrate --concurrency 0", exitInvalid, "choose from 1 to 64"},
		{environ, "tenant migrate now", exitInvalid, "takes no arguments"},
		{empty, "tenant ls", exitFailed, "does not exist"},
		{[]string{"TENANTFLOW_POSTGRES_DSN=" + enginetest.NewPostgresDatabase(t)}, "tenant migrate", exitFailed, `run "tenantflow migrate"`},
		{[]string{"TENANTFLOW_POSTGRES_DSN=postgres://u:secret@127.0.0.1:3/x"}, "tenant ls", exitFailed, "reach Postgres"},
	} {
		_, errOut, code := tenantflow(t, c.environ, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(errOut, c.says) || strings.Contains(errOut, "secret") {
			t.Errorf("%s: exit code %d, want %d; standard error %q should say %q", c.args, code, c.code, errOut, c.says)
		}
	}
}
