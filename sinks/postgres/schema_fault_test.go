package postgres_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

func (b *book) registration() *events.Event {
	return b.event(events.TypeCompanyRegistered, fmt.Sprintf(`"name":"A","billing_email":"a@x","initial_user":{"user_id":"%s-u1","email":"z@x"}`, b.company))
}

// sql runs statements in which $ stands for the company's schema, quoted.
func (b *book) sql(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		b.exec(t, strings.ReplaceAll(s, "$", `"tenant_`+b.company+`"`))
	}
}

// newVersion adds a version to those of the companies' tables.
func newVersion(sql string) string {
	return "INSERT INTO tenant_migrations (version, name, up_sql, checksum) SELECT max(version) + 1, 'x', '" + sql + "', 'x' FROM tenant_migrations"
}

func TestSchemaFault_ARegistrationIsRefusedAlone(t *testing.T) {
	t.Parallel()
	first := newBook(t)
	for name, in := range map[string]string{
		"a role with rights": "CREATE ROLE $ LOGIN",
		"a schema of others": "CREATE SCHEMA $; CREATE TABLE $.users (x int)",
		"a view of others":   "CREATE SCHEMA $; CREATE VIEW $.mt5_accounts AS SELECT 1 AS x",
	} {
		t.Run(name, func(t *testing.T) {
			b := first.another(t)
			b.sql(t, in)
			b.apply(t, b.registration(), "company.rejected schema_fault")
			if got := b.row(t, "SELECT count(*) FROM companies WHERE company_id = $1", b.company); got != "(0)" {
				t.Errorf("%s companies", got)
			}
			b.sql(t, "DROP SCHEMA IF EXISTS $ CASCADE", "DROP ROLE IF EXISTS $")
			b.apply(t, b.registration(), "company.created", "subscription.created", "company.config_changed")
		})
	}
}

func TestSchemaFault_AnEventIsRefusedAlone(t *testing.T) {
	t.Parallel()
	first := newBook(t)
	for name, c := range map[string]struct {
		harm, eventType, data string
	}{
		"no schema":                   {"DROP SCHEMA $ CASCADE", events.TypeSchemaUpgradeRequested, ""},
		"no schema for an upgrade":    {"DROP SCHEMA $ CASCADE", events.TypeUpgradeRequested, `"new_tier":"pro"`},
		"no schema for a removal":     {"DROP SCHEMA $ CASCADE", events.TypeUserRemoved, `"user_id":"@-u1"`},
		"no table of users":           {"ALTER TABLE $.users RENAME TO gone", events.TypeUpgradeRequested, `"new_tier":"pro"`},
		"a column is gone":            {"ALTER TABLE $.users DROP COLUMN subscription_limits", events.TypeUpgradeRequested, `"new_tier":"pro"`},
		"a table is another's":        {"ALTER TABLE $.users RENAME TO gone; CREATE VIEW $.users AS SELECT user_id, email FROM $.gone", events.TypeUserRemoved, `"user_id":"@-u1"`},
		"a view on a column (0A000)":  {newVersion("ALTER TABLE users ALTER email TYPE varchar(320)") + "; CREATE VIEW $.spy AS SELECT email FROM $.users", events.TypeSchemaUpgradeRequested, ""},
		"a view on a table (2BP01)":   {newVersion("DROP TABLE trading_positions") + "; CREATE VIEW $.spy AS SELECT * FROM $.trading_positions", events.TypeSchemaUpgradeRequested, ""},
		"a trigger that says no":      {"CREATE FUNCTION $.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'; CREATE TRIGGER no BEFORE UPDATE ON $.users FOR EACH ROW EXECUTE FUNCTION $.no()", events.TypeUpgradeRequested, `"new_tier":"pro"`},
		"a table can't be of version": {"DELETE FROM tenant_schema_versions WHERE company_id = '@'", events.TypeSchemaUpgradeRequested, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := first.another(t)
			b.register(t)
			b.sql(t, strings.ReplaceAll(c.harm, "@", b.company))
			want := "subscription.rejected schema_fault"
			if strings.HasPrefix(c.eventType, "company.") {
				want = "company.rejected schema_fault"
			}
			e := b.event(c.eventType, strings.ReplaceAll(c.data, "@", b.company))
			b.apply(t, e, want)
			b.apply(t, e) // it is at its end
			b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"a":1}`), "company.config_changed")
			b.another(t).register(t)
		})
	}
}

// What is due stays due, and what needs it done before is refused.
func TestSchemaFault_WhatIsDueStaysDue(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.sql(t, "ALTER TABLE $.users RENAME TO gone")
	b.clock = b.clock.AddDate(0, 2, 0)
	b.apply(t, b.event(events.TypeDowngradeRequested, `"new_tier":"free"`), "subscription.rejected schema_fault")
	b.settle(t, b.clock)
	if due, err := b.tenants.Due(t.Context(), 3, b.clock, 10); err != nil || len(due) != 0 {
		t.Errorf("tried again at once: %v, %v", due, err)
	}
	b.sql(t, "ALTER TABLE $.gone RENAME TO users")
	done, blocked := b.retry(t)
	if len(blocked) != 0 {
		t.Errorf("%v can't go on", blocked)
	}
	b.expect(t, "going on", done, []string{"subscription.expiry_handled", "notification.requested", "company.config_changed"})
}

// No event is refused because the installation is broken.
func TestSchemaFault_AnInstallationsFaultIsNone(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]string{
		"a public table":   "ALTER TABLE public.tenant_schema_versions RENAME TO gone",
		"a function":       "DROP FUNCTION public.create_company_schema(text)",
		"the service role": "ALTER FUNCTION public.grant_company_schema(text) RENAME TO gone",
		"a bad version":    newVersion("CREATE TABLE users (x int)"),
		"a public column":  "ALTER TABLE public.tenant_migrations RENAME COLUMN up_sql TO gone",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			b.exec(t, harm)
			if _, err := b.tenants.Apply(t.Context(), b.registration(), b.place(0)); postgres.Classify(err) != postgres.Fatal {
				t.Errorf("got %v, want a fault of the installation", err)
			}
		})
	}
	t.Run("a user without rights", func(t *testing.T) {
		t.Parallel()
		b := newBook(t)
		name := "poor_" + b.company
		b.exec(t, "CREATE ROLE "+name+" LOGIN", "GRANT ALL ON ALL TABLES IN SCHEMA public TO "+name, "GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO "+name,
			"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO "+name, "GRANT USAGE ON SCHEMA public TO "+name)
		t.Cleanup(func() { b.dropRole(name) })
		address, err := url.Parse(b.dsn)
		if err != nil {
			t.Fatal(err)
		}
		address.User = url.User(name)
		b.tenants = b.tenantsAs(t, address.String())
		_, err = b.tenants.Apply(t.Context(), b.registration(), b.place(0))
		var rejected *events.Rejection
		if postgres.Classify(err) != postgres.Fatal || errors.As(err, &rejected) {
			t.Errorf("got %v, want a fault of the installation", err)
		}
	})
}
