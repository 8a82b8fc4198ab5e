package migrations_test

import (
	"context"
	"database/sql"
	"os"
	"regexp"
	"strings"
	"testing"
)

// documentedQueries returns the queries in docs/tables.md, those for ClickHouse and those for Postgres.
func documentedQueries(t *testing.T) (clickHouse, postgres []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/tables.md")
	if err != nil {
		t.Fatal(err)
	}
	first, second, found := strings.Cut(string(text), "\n# Tables in Postgres\n")
	if !found {
		t.Fatal("there is no part about Postgres")
	}
	query := regexp.MustCompile("(?s)```sql\n(.*?)```")
	for part, to := range map[string]*[]string{first: &clickHouse, second: &postgres} {
		for _, match := range query.FindAllStringSubmatch(part, -1) {
			*to = append(*to, match[1])
		}
		if len(*to) < 5 {
			t.Fatalf("only %d queries found", len(*to))
		}
	}
	return clickHouse, postgres
}

func TestTheQueriesInTheDocumentationRun(t *testing.T) {
	t.Parallel()
	queries, _ := documentedQueries(t)
	c := migrated(t)
	for _, query := range queries {
		if err := readAll(t, c.DB(), query); err != nil {
			t.Errorf("%s\n%v", query, err)
		}
	}
}

// readAll runs a query and reads what it returns.
func readAll(t *testing.T, db *sql.DB, query string) error {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

func TestTheStatementsForPostgresInTheDocumentationRun(t *testing.T) {
	t.Parallel()
	_, statements := documentedQueries(t)
	p := openPostgres(t, newPostgres(t))
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	execPostgres(t, p, freeTier, `INSERT INTO subscription_tiers SELECT 'enterprise', 2, price_minor, currency, limits, benefits, support_level,
		backup_every, backup_keep, statement_timeout, p95_target FROM subscription_tiers WHERE tier = 'pro'`)
	// Roles outlive the database.
	t.Cleanup(func() {
		if _, err := p.DB().ExecContext(context.WithoutCancel(t.Context()), "SELECT drop_company_schema('acme-1')"); err != nil {
			t.Error(err)
		}
	})
	for _, s := range statements {
		execPostgres(t, p, s)
	}
	if got, want := told(t, p), "acme-1 acme-1 acme-1/acme-1-ann acme-1 acme-1 acme-1 acme-1 acme-1/acme-1-ann acme-1"; got != want {
		t.Errorf("the changes by hand tell %q, want %q", got, want)
	}
}
