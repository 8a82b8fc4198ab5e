package migrations_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestOverrides_ByPlainSQLHoldAndAreTold(t *testing.T) {
	t.Parallel()
	p := migratedPostgres(t)
	execPostgres(t, p, "INSERT INTO companies VALUES ('acme', 'Acme', 'a@acme.test'), ('bolt', 'Bolt', 'b@bolt.test')",
		"INSERT INTO subscriptions (company_id) VALUES ('acme'), ('bolt')", "DELETE FROM changes")
	for _, step := range []struct{ statement, told, acme, bolt string }{
		{"INSERT INTO limit_overrides (company_id, limit_name, value, reason) VALUES ('acme', 'daily_api_calls', '7', 'r')", "acme", "7 1 30", "1000 1 30"},
		{"INSERT INTO limit_overrides (company_id, limit_name, value, reason) VALUES ('acme', 'retention_days', '\"unlimited\"', 'r')", "acme", "7 1 unlimited", "1000 1 30"},
		{"UPDATE limit_overrides SET value = '8' WHERE limit_name = 'daily_api_calls'", "acme", "8 1 unlimited", "1000 1 30"},
		{"UPDATE limit_overrides SET reason = 'other', expires_at = now(), event_partition = 3", "", "8 1 unlimited", "1000 1 30"},
		{"UPDATE limit_overrides SET company_id = 'bolt' WHERE limit_name = 'daily_api_calls'", "acme bolt", "1000 1 unlimited", "8 1 30"},
		{"UPDATE subscriptions SET tier = 'pro'", "acme bolt", "50000 25 unlimited", "8 25 365"},
		{"UPDATE subscriptions SET effective_limits = '{}'", "acme bolt", "50000 25 unlimited", "8 25 365"}, // only the trigger writes it
		{"DELETE FROM limit_overrides WHERE company_id = 'bolt'", "bolt", "50000 25 unlimited", "50000 25 365"},
		{"TRUNCATE limit_overrides", "acme", "50000 25 365", "50000 25 365"},
	} {
		execPostgres(t, p, step.statement)
		held := func(company string) (text string) {
			t.Helper()
			if err := p.DB().QueryRowContext(t.Context(), "SELECT concat_ws(' ', effective_limits ->> 'daily_api_calls', effective_limits ->> 'max_users', effective_limits ->> 'retention_days') "+
				"FROM subscriptions WHERE company_id = $1", company).Scan(&text); err != nil {
				t.Fatal(err)
			}
			return text
		}
		said := strings.Fields(told(t, p))
		if len(said) == 2 && said[0] > said[1] {
			said[0], said[1] = said[1], said[0] // no order is given between companies
		}
		if got, acme, bolt := strings.Join(said, " "), held("acme"), held("bolt"); got != step.told || acme != step.acme || bolt != step.bolt {
			t.Errorf("%s: told %q, acme has %s, bolt %s; want %q, %s, %s", step.statement, got, acme, bolt, step.told, step.acme, step.bolt)
		}
	}
	for _, wrong := range []string{`'-1'`, `'1.5'`, `'"many"'`, `'null'`, `'{}'`, `'1000000000000000000'`, `'true'`} {
		if _, err := p.DB().ExecContext(t.Context(), "INSERT INTO limit_overrides (company_id, limit_name, value, reason) VALUES ('acme', 'max_users', "+wrong+", 'r')"); err == nil {
			t.Errorf("%s is taken for a limit", wrong)
		}
	}
	if _, err := p.DB().ExecContext(t.Context(), "INSERT INTO limit_overrides (company_id, limit_name, value, reason) VALUES ('acme', 'price', '1', 'r')"); err == nil {
		t.Error("a limit of another name is taken")
	}
}

func TestOverrides_AreWhatStorageAndCleanupLookAt(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	acme := d.company("acme", "free")
	set := func(limit, value string) {
		t.Helper()
		execPostgres(t, d.tables, fmt.Sprintf(`INSERT INTO limit_overrides (company_id, limit_name, value, reason) VALUES ('%s', '%s', '%s', 'r')
			ON CONFLICT (company_id, limit_name) DO UPDATE SET value = excluded.value`, acme, limit, value))
	}
	for _, c := range []struct{ value, want string }{{"0", "falsefalse"}, {`"unlimited"`, "truetrue"}, {"200", "truefalse"}} {
		set("storage_mb", c.value)
		if got := d.one(d.owner, fmt.Sprintf("SELECT check_storage_quota('%s', 150)::text || check_storage_quota('%[1]s', 250)::text", acme)); got != c.want {
			t.Errorf("storage_mb %s: 150 and 250 MB more: %s, want %s", c.value, got, c.want)
		}
	}
	// Who comes, and whose company gets a schema, has the limits that hold.
	execPostgres(t, d.tables, fmt.Sprintf("SELECT tenant_user_put('%s', 'u', 'u@x.test', now())", acme))
	if got := d.one(d.owner, fmt.Sprintf("SELECT subscription_limits ->> 'storage_mb' FROM tenant_%s.users", acme)); got != "200" {
		t.Errorf("a new user has %s MB", got)
	}
	execPostgres(t, d.tables, fmt.Sprintf("SELECT drop_company_schema('%s')", acme), fmt.Sprintf("SELECT create_company_schema('%s')", acme))
	if got := d.one(d.owner, fmt.Sprintf("SELECT subscription_limits ->> 'storage_mb' FROM tenant_%s.users", acme)); got != "200" {
		t.Errorf("in a new schema a user has %s MB", got)
	}
	set("max_users", "7")
	execPostgres(t, d.tables, fmt.Sprintf("SELECT initialize_company_config('%s', 'tenant_%[1]s')", acme))
	if got := d.one(d.owner, "SELECT config ->> 'max_users' FROM company_config"); got != "7" {
		t.Errorf("a new configuration says %s users", got)
	}
	execPostgres(t, d.tables, fmt.Sprintf(`INSERT INTO tenant_%s.trading_positions (user_id, symbol, volume, open_price, opened_at, closed_at, status)
		SELECT 'u', 'S', 1, 1, now() - interval '3000 days', now() - make_interval(days => i, hours => -12), 'closed' FROM generate_series(1, 1000) i`, acme))
	for _, c := range []struct{ value, deleted string }{
		{`"unlimited"`, "0"}, {"999999999999999999", "0"}, {"400000", "0"}, {"900", "100"}, {"365", "535"}, {"0", "365"}, {`"unlimited"`, "0"},
	} {
		set("retention_days", c.value)
		if got := d.psql(d.owner, fmt.Sprintf("SELECT cleanup_old_data_by_tier('%s')", acme)); got != c.deleted {
			t.Errorf("retention_days %s: %s positions are deleted, want %s", c.value, got, c.deleted)
		}
	}
	if got := d.one(d.owner, "SELECT string_agg(coalesce(retention_days::text, '-'), ' ' ORDER BY id) FROM data_cleanup_log"); got != "- 365000 365000 900 365 0 -" {
		t.Errorf("the log says %s", got)
	}
}
