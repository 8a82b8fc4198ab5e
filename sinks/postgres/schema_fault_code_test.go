package postgres_test

import (
	"net/url"
	"strings"
	"testing"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

// trigger adds a trigger to the users of a company ($) that runs a body at a moment such as BEFORE UPDATE.
func trigger(moment, body string) string {
	return `CREATE FUNCTION $.no() RETURNS trigger LANGUAGE plpgsql AS 'DECLARE n text; BEGIN ` + strings.ReplaceAll(body, "'", "''") + ` END'; ` +
		moment + ` ON $.users FOR EACH ROW EXECUTE FUNCTION $.no()`
}

const beforeUpdate = "CREATE TRIGGER no BEFORE UPDATE"

// raising adds a trigger that raises a code.
func raising(code string) string {
	return trigger(beforeUpdate, "RAISE EXCEPTION USING ERRCODE = '"+code+"', MESSAGE = 'no';")
}

// A company's triggers, checks and columns fail with any code there is.
func TestSchemaFault_WhateverItsObjectsSay(t *testing.T) {
	t.Parallel()
	first := newBook(t)
	for name, harm := range map[string]string{
		"P0002 no row":           trigger(beforeUpdate, "SELECT 'x' INTO STRICT n WHERE false; RETURN NEW;"),
		"P0004 assertion":        trigger(beforeUpdate, "ASSERT false; RETURN NEW;"),
		"20000 case not found":   trigger(beforeUpdate, "CASE NEW.user_id WHEN 'a' THEN NULL; END CASE; RETURN NEW;"),
		"21000 cardinality":      trigger(beforeUpdate, "n := (SELECT x FROM (VALUES ('a'), ('b')) AS v (x)); RETURN NEW;"),
		"22012 division by zero": trigger(beforeUpdate, "n := 1/0; RETURN NEW;"),
		"2F005 no return":        trigger(beforeUpdate, ""),
		"45000":                  raising("45000"),
		"08006":                  raising("08006"),
		"25006":                  raising("25006"),
		"53100":                  raising("53100"),
		"57P01":                  raising("57P01"),
		"HV000":                  raising("HV000"),
		"23514 a check":          "ALTER TABLE $.users ADD CONSTRAINT c CHECK (subscription_tier = 'free')",
		"22001 a short column":   "ALTER TABLE $.users ALTER subscription_tier TYPE varchar(2) USING 'fr'",
		"23505 a unique index":   "INSERT INTO $.users (user_id, email) VALUES ('zz', 'zz'); CREATE UNIQUE INDEX u ON $.users (subscription_tier) WHERE subscription_tier = 'pro'",
		"put off to the commit": strings.Replace(trigger("CREATE CONSTRAINT TRIGGER no AFTER UPDATE", "RAISE EXCEPTION 'no';"),
			" FOR EACH ROW", " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW", 1),
	} {
		t.Run(name, func(t *testing.T) {
			b := first.another(t)
			b.register(t)
			b.sql(t, harm)
			b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.rejected schema_fault")
			b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"a":1}`), "company.config_changed")
			b.another(t).register(t)
		})
	}
}

// What may be over later holds up the company alone.
func TestSchemaFault_WhatMayPassHoldsUpTheCompany(t *testing.T) {
	t.Parallel()
	first := newBook(t)
	for code, reason := range map[string]string{
		"40001": postgres.BlockedByLock, "40P01": postgres.BlockedByLock, "57014": postgres.BlockedBySize,
		"58P01": postgres.BlockedByStorage, "58030": postgres.BlockedByStorage, "XX001": postgres.BlockedByStorage,
	} {
		t.Run(code, func(t *testing.T) {
			b := first.another(t)
			b.register(t)
			b.sql(t, raising(code))
			b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`))
			if got := b.row(t, "SELECT reason FROM company_blocks WHERE company_id = $1", b.company); got != "("+reason+")" {
				t.Errorf("blocked by %s, want %s", got, reason)
			}
			b.another(t).register(t)
			b.sql(t, "DROP TRIGGER no ON $.users")
			done, _ := b.retry(t)
			b.expect(t, "going on", done, []string{"subscription.upgraded", "company.config_changed"})
		})
	}
}

// A payment that comes behind something due is refused with it, and not lost as a dead letter.
func TestSchemaFault_APaymentBehindWhatIsDue(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	b.sql(t, "ALTER TABLE $.users ADD CONSTRAINT c CHECK (subscription_tier <> 'free')")
	b.clock = b.clock.AddDate(0, 2, 0)
	b.apply(t, b.event(events.TypePaymentReceived, `"payment_id":"`+b.company+`-p","amount_minor":4900,"currency":"USD","paid_at":"2026-02-01T00:00:00Z"`),
		"subscription.rejected schema_fault")
}

// A service that does not own the companies' tables meets their policies, and triggers that do what it may not.
func TestSchemaFault_OfAServiceThatOwnsNothing(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	name := "svc_" + b.company
	b.exec(t, "CREATE ROLE "+name+" LOGIN CREATEROLE", "GRANT ALL ON ALL TABLES IN SCHEMA public TO "+name,
		"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO "+name, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO "+name)
	t.Cleanup(func() { b.dropRole(name) })
	b.sql(t, "GRANT ALL ON SCHEMA $ TO "+name, "GRANT ALL ON ALL TABLES IN SCHEMA $ TO "+name)
	address, err := url.Parse(b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.User(name)
	b.tenants = b.tenantsAs(t, address.String())
	add := func(n string, want string) {
		b.apply(t, b.event(events.TypeUserAdded, `"user_id":"`+b.company+n+`","email":"`+n+`@x"`), want)
	}
	add("-u2", "company.user_provisioned")
	b.sql(t, "ALTER TABLE $.users ENABLE ROW LEVEL SECURITY")
	add("-u3", "company.rejected schema_fault")
	b.sql(t, "ALTER TABLE $.users DISABLE ROW LEVEL SECURITY", "CREATE TABLE $.secret (x int)", trigger("CREATE TRIGGER no BEFORE INSERT", "INSERT INTO $.secret VALUES (1); RETURN NEW;"))
	add("-u4", "company.rejected schema_fault")
}

func TestBlocked_OtherMissingRowsHoldUpTheirCompanyAlone(t *testing.T) {
	t.Parallel()
	first := newBook(t)
	for _, table := range []string{"company_config", "company_heads"} {
		t.Run(table, func(t *testing.T) {
			b := first.another(t)
			b.register(t)
			b.exec(t, "CREATE TABLE kept_"+table+" AS SELECT * FROM "+table+" WHERE company_id = '"+b.company+"'", "DELETE FROM "+table+" WHERE company_id = '"+b.company+"'")
			b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"a":1}`))
			b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`))
			if got := b.row(t, "SELECT reason, detail LIKE '%"+table+"%' FROM company_blocks WHERE company_id = $1", b.company); got != "(state,t)" {
				t.Errorf("blocked: %s", got)
			}
			b.another(t).register(t)
			b.exec(t, "INSERT INTO "+table+" SELECT * FROM kept_"+table)
			done, _ := b.retry(t)
			b.expect(t, "going on", done, []string{"company.config_changed", "subscription.upgraded", "company.config_changed"})
		})
	}
}

// A company that another program has entered has no audit log yet; its first event begins one.
func TestApply_BeginsTheAuditLogOfACompanyWithoutOne(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.exec(t, "ALTER TABLE audit_log DISABLE TRIGGER USER", "DELETE FROM audit_log WHERE company_id = '"+b.company+"'", "ALTER TABLE audit_log ENABLE TRIGGER USER",
		"DELETE FROM company_heads WHERE company_id = '"+b.company+"'")
	b.apply(t, b.event(events.TypeUpgradeRequested, `"new_tier":"pro"`), "subscription.upgraded", "company.config_changed")
	if got := b.row(t, "SELECT seq, action FROM audit_log WHERE company_id = $1", b.company); got != "(1,subscription.upgraded)" {
		t.Errorf("the audit log is %s", got)
	}
}
