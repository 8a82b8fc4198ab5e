package postgres_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// pages runs a query of a file and returns how many pages it looks at.
func (b *book) pages(t *testing.T, file string, args ...any) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("queries", file))
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	// As the service sends them: the parameters are not known when the statement is planned.
	if err := b.conn.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+string(text), append([]any{pgx.QueryExecModeCacheStatement}, args...)...).Scan(&raw); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(raw, &plans); err != nil || len(plans) != 1 {
		t.Fatalf("%s: %s: %v", file, raw, err)
	}
	return plans[0].Plan.Hit + plans[0].Plan.Read
}

// Every process looks every two seconds for what was left behind. That costs the same however many events wait of a company that can't go on, and
// however many rows an open transaction keeps alive in the indexes, which may be that of any company's own login.
func TestSweep_CostsNoMoreBehindAnOpenTransaction(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	open, err := pgx.Connect(t.Context(), b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = open.Close(context.Background()) })
	if _, err := open.Exec(t.Context(), "BEGIN; CREATE TABLE not_committed ()"); err != nil {
		t.Fatal(err)
	}
	b.exec(t,
		// Done and published ten minutes ago.
		`INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, result, applied_at)
			SELECT '/cost', 'd' || n, 'subscription.due.v1', 'c' || n % 300, 'done', '', '{}', now() - interval '10 minutes' FROM generate_series(1, 20000) AS n`,
		"UPDATE inbox SET published_at = now() WHERE source = '/cost'",
		// Set aside, of one company.
		`INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, event, wait_until)
			SELECT '/cost', 'w' || n, 'subscription.due.v1', '`+b.company+`', 'waiting', '', '{}', now() + interval '10 minutes' FROM generate_series(1, 10000) AS n`,
		`INSERT INTO company_blocks (company_id, reason, detail, next_try) VALUES ('`+b.company+`', 'lock', '', now())`,
		"VACUUM ANALYZE inbox")
	const few, many = 100, 300
	whole := b.pages(t, "inbox_unpublished.sql", time.Second, 200, nil)
	if whole < many {
		t.Fatalf("looking from the beginning takes %d pages: the open transaction keeps nothing", whole)
	}
	for file, args := range map[string][]any{
		"inbox_unpublished.sql": {time.Second, 200, time.Now().Add(-time.Minute)},
		"inbox_overdue.sql":     {time.Duration(0), 200},
		"inbox_stranded.sql":    {200},
		"due.sql":               {3, nil, "subscription.events", time.Minute, 100},
		"block_retry.sql":       {5},
	} {
		if n := b.pages(t, file, args...); n > few {
			t.Errorf("%s takes %d pages, want at most %d", file, n, few)
		}
	}
	// The store itself goes on where it has found nothing before.
	if left, err := b.tenants.Unpublished(t.Context(), time.Second, 10); err != nil || len(left) != 0 {
		t.Fatalf("left: %v, %v", left, err)
	}
	unpublished := "INSERT INTO inbox (source, event_id, type, company_id, state, fingerprint, result, applied_at) VALUES ('/cost', $1, 'company.config_updated.v1', 'c', 'done', '', $2, now() - $3::interval)"
	for id, ago := range map[string]time.Duration{"long ago": time.Hour, "lately": time.Minute} {
		if _, err := b.conn.Exec(t.Context(), unpublished, id, `{"company_id":"c","consumer":"company","events":[]}`, ago); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := b.tenants.Unpublished(t.Context(), time.Second, 10); err != nil || len(left) != 1 || left[0].ID != "lately" {
		t.Errorf("after a look that found nothing, the next one finds %v, %v; want what was done since, and a while before", left, err)
	}
}

// An index can't be searched by a volatile function.
func TestQueries_CompareWithTheTimeOfTheStatement(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("queries/*.sql")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	compared := regexp.MustCompile(`(?m)^[^-]*\b(due_at|applied_at|wait_until|next_try|changed_at)\s*(<|>|<=|>=)[^\n]*clock_timestamp`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := compared.Find(text); found != nil {
			t.Errorf("%s: %q is filtered row by row; statement_timestamp() is searched for", file, found)
		}
	}
}
