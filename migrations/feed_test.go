package migrations_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"tenantflow/migrations"
)

// told returns the changes in the feed in the order of their versions, as company or company/user, and empties it.
func told(t *testing.T, p *migrations.Postgres) string {
	t.Helper()
	rows, err := p.DB().QueryContext(t.Context(), "WITH taken AS (DELETE FROM changes RETURNING *) "+
		"SELECT company_id || coalesce('/' || user_id, '') FROM taken ORDER BY version, company_id, user_id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestEveryChangeByPlainSQLIsTold(t *testing.T) {
	t.Parallel()
	p := migratedPostgres(t)
	// One after the other: each step meets what the ones before have left.
	for _, step := range []struct{ statement, want string }{
		{"INSERT INTO companies VALUES ('acme', 'Acme', 'a@acme.test'), ('bolt', 'Bolt', 'b@bolt.test')", "acme bolt"},
		{"INSERT INTO company_config (company_id, config) VALUES ('acme', '{\"a\": 1}')", "acme"},
		{"INSERT INTO subscriptions (company_id) VALUES ('acme'), ('bolt')", "acme bolt"},
		{"INSERT INTO user_directory (user_id, company_id) VALUES ('u1', 'acme'), ('u2', 'acme')", "acme/u1 acme/u2"},
		{"UPDATE subscriptions SET tier = 'pro' WHERE company_id = 'acme'", "acme"},
		{"UPDATE subscriptions SET tier = 'pro' WHERE company_id = 'acme'", "acme"}, // who touches a row wants it read again
		{"UPDATE user_directory SET subscription_status = 'suspended' WHERE user_id = 'u2'", "acme/u2"},
		{"UPDATE user_directory SET last_activity = now()", ""},
		{"UPDATE user_directory SET last_activity = now() + interval '1s', updated_at = now() WHERE user_id = 'u1'", ""},
		{"UPDATE user_directory SET last_activity = now() + interval '2s', email = 'x@acme.test' WHERE user_id = 'u1'", "acme/u1"},
		{"UPDATE user_directory SET company_id = 'bolt' WHERE user_id = 'u2'", "bolt/u2 acme/u2"},
		{"UPDATE user_directory SET user_id = 'u3' WHERE user_id = 'u2'", "bolt/u3 bolt/u2"},
		{"INSERT INTO company_config (company_id) VALUES ('acme') ON CONFLICT (company_id) DO UPDATE SET config = '{}'", "acme"},
		{"UPDATE company_config SET company_id = 'bolt'", "bolt acme"},
		{"UPDATE companies SET status = 'closed' WHERE company_id = 'bolt'", "bolt"},
		{"DELETE FROM user_directory WHERE user_id = 'u3'", "bolt/u3"},
		{"DELETE FROM subscriptions WHERE company_id = 'acme'", "acme"},
		{"DELETE FROM company_config", "bolt"},
		{"TRUNCATE user_directory, subscriptions", "acme bolt"},
		{"INSERT INTO user_directory (user_id, company_id) VALUES ('u4', 'acme')", "acme/u4"},
		{"DELETE FROM user_directory", "acme/u4"},
		{"DELETE FROM companies WHERE company_id = 'bolt'", "bolt"},
		{"INSERT INTO subscriptions (company_id) VALUES ('acme')", "acme"},
		{"TRUNCATE companies CASCADE", "acme acme"},
	} {
		execPostgres(t, p, step.statement)
		if got := told(t, p); got != step.want {
			t.Errorf("%s\ntells %q, want %q", step.statement, got, step.want)
		}
	}
}

func TestWhatIsLeftOfACompanyIsAsNewAsTheLastChangeTold(t *testing.T) {
	t.Parallel()
	p := migratedPostgres(t)
	execPostgres(t, p, "INSERT INTO companies VALUES ('acme', 'Acme', 'a@acme.test'), ('bolt', 'Bolt', 'b@bolt.test')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u1', 'acme')")
	previous := int64(0)
	for _, statement := range []string{
		"UPDATE companies SET version = 1",
		"INSERT INTO subscriptions (company_id, tier) VALUES ('acme', 'pro')",
		"INSERT INTO company_config (company_id) VALUES ('acme')",
		"UPDATE user_directory SET email = 'x'",
		"UPDATE subscriptions SET company_id = 'bolt'",
		"UPDATE subscriptions SET company_id = 'acme'",
		"DELETE FROM subscriptions",
		"DELETE FROM company_config",
		"INSERT INTO subscriptions (company_id, tier, version) VALUES ('acme', 'pro', 1)",
		"UPDATE subscriptions SET version = 1",
		"TRUNCATE subscriptions",
	} {
		execPostgres(t, p, statement)
		var rows, changes int64
		if err := p.DB().QueryRowContext(t.Context(), `SELECT greatest(
				(SELECT version FROM companies WHERE company_id = 'acme'), (SELECT version FROM company_config WHERE company_id = 'acme'),
				(SELECT version FROM subscriptions WHERE company_id = 'acme'), (SELECT version FROM user_directory WHERE user_id = 'u1')),
			(SELECT max(version) FROM changes WHERE company_id = 'acme')`).Scan(&rows, &changes); err != nil {
			t.Fatal(err)
		}
		if rows != changes || rows <= previous {
			t.Errorf("%s: the newest row has version %d, the newest change %d, before it was %d", statement, rows, changes, previous)
		}
		previous = rows
	}
}

func TestVersionsOfACompanyRiseInTheOrderOfCommits(t *testing.T) {
	t.Parallel()
	p := migratedPostgres(t)
	execPostgres(t, p, "INSERT INTO companies VALUES ('acme', 'Acme', 'a@acme.test'), ('bolt', 'Bolt', 'b@bolt.test')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u1', 'acme'), ('u2', 'acme'), ('v', 'bolt')",
		"INSERT INTO subscriptions (company_id) VALUES ('acme'), ('bolt')")
	// Every kind of first change holds back every kind of second one, and none of another company.
	for _, first := range []string{
		"UPDATE user_directory SET email = 'y' WHERE user_id = 'u1'",
		"UPDATE subscriptions SET tier = 'pro' WHERE company_id = 'acme'",
		"DELETE FROM user_directory WHERE user_id = 'u2'",
		"DELETE FROM subscriptions WHERE company_id = 'acme'",
	} {
		for _, second := range []struct {
			statement string
			waits     bool
		}{
			{"UPDATE user_directory SET email = 'z' WHERE user_id = 'u2'", true},
			{"INSERT INTO user_directory (user_id, company_id) VALUES ('u9', 'acme')", true},
			{"DELETE FROM user_directory WHERE user_id = 'u1'", true},
			{"UPDATE companies SET name = 'n' WHERE company_id = 'acme'", true},
			{"INSERT INTO company_config (company_id) VALUES ('acme')", true},
			{"UPDATE user_directory SET last_activity = now() WHERE user_id = 'v'", false},
			{"UPDATE user_directory SET email = 'z' WHERE user_id = 'v'", false},
			{"UPDATE subscriptions SET tier = 'pro' WHERE company_id = 'bolt'", false},
		} {
			one, two := begin(t, p), begin(t, p)
			if _, err := one.ExecContext(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			_, err := two.ExecContext(t.Context(), "SET LOCAL lock_timeout = '20ms'; "+second.statement)
			waited := err != nil && strings.Contains(err.Error(), "55P03")
			if waited != second.waits || err != nil && !waited {
				t.Errorf("during %s:\n%s: %v", first, second.statement, err)
			}
			for _, tx := range []*sql.Tx{two, one} {
				if err := tx.Rollback(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func begin(t *testing.T, p *migrations.Postgres) *sql.Tx {
	t.Helper()
	tx, err := p.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestASubscriptionGetsWhatItsTierHas(t *testing.T) {
	t.Parallel()
	p := migratedPostgres(t)
	execPostgres(t, p, "INSERT INTO companies VALUES ('acme', 'Acme', 'a@acme.test')")
	for _, step := range []struct{ statement, want string }{
		{"INSERT INTO subscriptions (company_id, period_start) VALUES ('acme', '2026-01-31 12:00+00')", "free active 0 1000 2026-02-28 12:00"},
		{"UPDATE subscriptions SET tier = 'pro'", "pro active 4900 50000 2026-02-28 12:00"},
		{"UPDATE subscription_tiers SET limits = jsonb_set(limits, '{daily_api_calls}', '7'), price_minor = 1", "pro active 4900 50000 2026-02-28 12:00"},
		{"UPDATE subscriptions SET status = 'past_due'", "pro past_due 4900 50000 2026-02-28 12:00"},
		{"UPDATE subscriptions SET tier = 'free', price_minor = 5, limits = jsonb_set(limits, '{daily_api_calls}', '8')", "free past_due 5 8 2026-02-28 12:00"},
		{"UPDATE subscriptions SET tier = 'gold'", "gold past_due 1 7 2026-02-28 12:00"}, // not in the catalogue: as free
		{"UPDATE subscriptions SET limits = NULL, price_minor = NULL, tier = 'pro'", "pro past_due 1 7 2026-02-28 12:00"},
	} {
		execPostgres(t, p, step.statement)
		var got string
		if err := p.DB().QueryRowContext(t.Context(), `SELECT format('%s %s %s %s %s', tier, status, price_minor, limits ->> 'daily_api_calls',
			to_char(period_end, 'YYYY-MM-DD HH24:MI')) FROM subscriptions`).Scan(&got); err != nil || got != step.want {
			t.Errorf("%s: %s, %v; want %s", step.statement, got, err, step.want)
		}
	}
	execPostgres(t, p, "DELETE FROM subscriptions", "DELETE FROM subscription_tiers")
	if _, err := p.DB().ExecContext(t.Context(), "INSERT INTO subscriptions (company_id) VALUES ('acme')"); err == nil || !strings.Contains(err.Error(), "no tier free") {
		t.Errorf("without a catalogue: %v", err)
	}
}

func TestRowsThatNobodyCouldReadAreRefused(t *testing.T) {
	t.Parallel()
	p := migratedPostgres(t)
	execPostgres(t, p, "INSERT INTO companies VALUES ('acme', 'Acme', 'a@acme.test')", "INSERT INTO subscriptions (company_id) VALUES ('acme')")
	limits := func(name, value string) string {
		return fmt.Sprintf("UPDATE subscriptions SET limits = jsonb_set(limits, '{%s}', '%s')", name, value)
	}
	execPostgres(t, p, limits("storage_mb", `"unlimited"`), limits("more", `"is welcome"`), limits("daily_api_calls", "0"), limits("features_enabled", "[]"))
	for _, statement := range []string{
		"INSERT INTO companies VALUES ('a b', 'n', 'e')", "INSERT INTO companies VALUES ('', 'n', 'e')",
		"INSERT INTO companies VALUES ('" + strings.Repeat("x", 51) + "', 'n', 'e')", "INSERT INTO companies VALUES (E'a\\n', 'n', 'e')",
		"INSERT INTO companies VALUES ('\u0430cme', 'n', 'e')", // a Cyrillic a
		"INSERT INTO companies (company_id, name, billing_email, created_at) VALUES ('a', 'n', 'e', 'infinity')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u.1', 'acme')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u', 'nobody')",
		"INSERT INTO user_directory (user_id, company_id, subscription_status) VALUES ('u', 'acme', 'paused')",
		"INSERT INTO user_directory (user_id, company_id, subscription_end_date) VALUES ('u', 'acme', '-infinity')",
		"INSERT INTO company_config VALUES ('acme', '[]')",
		"UPDATE subscriptions SET status = 'open'", "UPDATE subscriptions SET tier = 'Pro'", "UPDATE subscriptions SET price_minor = -1",
		"UPDATE subscriptions SET period_end = period_start", "UPDATE subscriptions SET period_end = 'infinity'",
		"UPDATE subscriptions SET currency = 'usd'", "UPDATE subscriptions SET limits = '[]'", "UPDATE subscriptions SET limits = '{}'",
		"DELETE FROM companies",
		limits("daily_api_calls", "-1"), limits("daily_api_calls", "1.5"), limits("daily_api_calls", "1e30"), limits("daily_api_calls", "null"),
		limits("max_users", `"many"`), limits("retention_days", `"unlimited"`), limits("retention_days", "12345678"),
		limits("features_enabled", "[1]"), limits("features_enabled", `"x"`), limits("features_enabled", "[[]]"),
	} {
		if _, err := p.DB().ExecContext(t.Context(), statement); err == nil {
			t.Errorf("accepted: %s", statement)
		} else if code := err.Error(); !strings.Contains(code, "SQLSTATE 23") {
			t.Errorf("%s: %v", statement, err)
		}
	}
}
