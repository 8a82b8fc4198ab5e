package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/postgres"
)

// A reader follows the feed.
type reader struct {
	store *postgres.Store
	at    directory.Position
}

// told returns what the feed tells up to its end, as company or company/user, sorted.
func (r *reader) told(t *testing.T) []string {
	t.Helper()
	names := []string{}
	for {
		page, err := r.store.Changes(t.Context(), r.at)
		if err != nil {
			t.Fatal(err)
		}
		if page.Begun != (r.at == "") || page.Next == "" || page.Origin == "" {
			t.Errorf("from %q the page is %+v", r.at, page)
		}
		r.at = page.Next
		for _, c := range page.Changes {
			name := c.CompanyID
			if c.UserID != "" {
				name += "/" + c.UserID
			}
			if c.Version == 0 {
				t.Errorf("%s has no version", name)
			}
			names = append(names, name)
		}
		if !page.More {
			slices.Sort(names)
			return names
		}
	}
}

func (r *reader) tells(t *testing.T, want ...string) {
	t.Helper()
	if got := r.told(t); !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestChangesByPlainSQLAreToldOnceEach(t *testing.T) {
	t.Parallel()
	w := setup(t)
	r := &reader{store: w.store}
	r.tells(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('bolt', 'B', 'b@x')",
		"INSERT INTO user_directory (user_id, company_id) VALUES ('u1', 'acme'), ('u2', 'acme')",
		"INSERT INTO subscriptions (company_id) VALUES ('acme')")
	r.tells(t, "acme", "acme/u1", "acme/u2", "bolt")
	r.tells(t)
	w.exec(t, "UPDATE subscriptions SET tier = 'pro' WHERE company_id = 'acme'")
	r.tells(t, "acme")
	w.exec(t, "UPDATE user_directory SET company_id = 'bolt' WHERE user_id = 'u1'")
	r.tells(t, "acme/u1", "bolt/u1")
	w.exec(t, "DELETE FROM user_directory WHERE user_id = 'u2'", "UPDATE companies SET status = 'closed' WHERE company_id = 'bolt'")
	r.tells(t, "acme/u2", "bolt")
	r.tells(t)
	late := &reader{store: w.store} // a later reader receives all that is kept
	late.tells(t, "acme", "acme/u1", "acme/u2", "bolt", "bolt/u1")
	late.tells(t)
}

func TestATransactionThatCommitsLateIsToldThen(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x'), ('bolt', 'B', 'b@x'), ('cord', 'C', 'c@x')")
	r := &reader{store: w.store}
	r.told(t)
	r.told(t)

	slow, err := w.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Exec(t.Context(), "UPDATE companies SET name = 'late' WHERE company_id = 'acme'"); err != nil {
		t.Fatal(err)
	}
	savepoint, err := slow.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := savepoint.Exec(t.Context(), "UPDATE companies SET name = 'late' WHERE company_id = 'cord'"); err != nil {
		t.Fatal(err)
	}
	if err := savepoint.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := connect(t, w.dsn)
	for range 3 { // versions and transactions of others go past it, and polls as well
		if _, err := other.Exec(t.Context(), "UPDATE companies SET name = name || 'x' WHERE company_id = 'bolt'"); err != nil {
			t.Fatal(err)
		}
		r.tells(t, "bolt")
	}
	lost := &reader{store: w.store, at: r.at}
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	anew := &reader{store: open(t, postgres.Config{DSN: w.dsn}), at: r.at}
	r.tells(t, "acme", "cord")
	r.tells(t)
	// A reader that asks again from an old position, and another process, miss nothing either.
	for _, again := range []*reader{lost, anew} {
		if got := again.told(t); !slices.Contains(got, "acme") || !slices.Contains(got, "cord") {
			t.Errorf("told %q", got)
		}
		again.tells(t)
	}
}

func TestNoChangeIsMissedWhileManyCommitInAnyOrder(t *testing.T) {
	t.Parallel()
	w := setup(t)
	const writers, each = 4, 60
	done := make(chan error, writers)
	for i := range writers {
		conn := connect(t, w.dsn)
		go func() {
			for n := range each {
				err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
					id := fmt.Sprintf("c%d-%d", i, n)
					if _, err := tx.Exec(t.Context(), "INSERT INTO companies (company_id, name, billing_email) VALUES ($1, '', '')", id); err != nil {
						return err
					}
					// Open for a while, each for another one.
					_, err := tx.Exec(t.Context(), "SELECT pg_sleep($1)", float64((i*7+n*3)%10)/1000)
					return err
				})
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	// Pages of two: a read goes over many of them while others commit.
	r := &reader{store: open(t, postgres.Config{DSN: w.dsn, ChangesPage: 2})}
	seen := map[string]bool{}
	poll := func() {
		for _, name := range r.told(t) {
			seen[name] = true
		}
	}
	for running := writers; running > 0; {
		poll()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running--
		default:
		}
	}
	poll()
	if len(seen) != writers*each {
		t.Errorf("%d of %d changes were told", len(seen), writers*each)
	}
}

func TestOldChangesAreRemovedOnceEverybodyCouldReadThem(t *testing.T) {
	t.Parallel()
	w := setupOn(t, enginetest.Postgres(t).DSN()) // a server of its own: transactions in other databases count as well
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) SELECT 'c' || n, '', '' FROM generate_series(1, 25000) AS n",
		"UPDATE changes SET changed_at = now() - interval '3 hours'",
		"UPDATE companies SET name = 'n' WHERE company_id = 'c1'")
	// As old as the others, and not committed yet when the next call notes how far every process has read.
	slow, err := w.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Exec(t.Context(), "INSERT INTO changes (version, company_id, changed_at) VALUES (0, 'late', now() - interval '3 hours')"); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{0, 25_000, 0, 0, 1} {
		switch i {
		case 3:
			if err := slow.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		removed, err := w.store.PruneChanges(t.Context())
		if err != nil || removed != want {
			t.Errorf("call %d removed %d: %v", i, removed, err)
		}
	}
	var left string
	if err := w.conn.QueryRow(t.Context(), "SELECT string_agg(company_id, ',') FROM changes").Scan(&left); err != nil || left != "c1" {
		t.Errorf("left: %s, %v", left, err)
	}
}

func TestChanges_OfAnotherServersFutureAreRemoved(t *testing.T) {
	t.Parallel()
	w := setup(t)
	r := &reader{store: w.store}
	// As they come with a backup of another server.
	w.exec(t, "INSERT INTO changes (version, company_id, xid) SELECT n, 'c' || n, (1000000000000 + n)::text::xid8 FROM generate_series(1, 10001) AS n")
	r.tells(t)
	if removed, err := w.store.PruneChanges(t.Context()); err != nil || removed != 10_001 {
		t.Errorf("removed %d: %v", removed, err)
	}
}

func TestChanges_PagesLeaveNothingOut(t *testing.T) {
	t.Parallel()
	w := setup(t)
	paged := &reader{store: open(t, postgres.Config{DSN: w.dsn, ChangesPage: 7})}
	paged.told(t)
	held, err := w.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := held.Exec(t.Context(), "INSERT INTO companies (company_id, name, billing_email) SELECT 'h' || n, '', '' FROM generate_series(1, 50) AS n"); err != nil {
		t.Fatal(err)
	}
	other := connect(t, w.dsn)
	for n := range 60 {
		if _, err := other.Exec(t.Context(), "INSERT INTO companies (company_id, name, billing_email) VALUES ($1, '', '')", fmt.Sprint("c", n)); err != nil {
			t.Fatal(err)
		}
	}
	first, err := paged.store.Changes(t.Context(), paged.at)
	if err != nil || !first.More || len(first.Changes) != 7 || first.Begun {
		t.Fatalf("the first page is %+v, %v", first, err)
	}
	// What commits between two pages is returned behind what was committed before.
	if err := held.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	paged.at = first.Next
	if got := paged.told(t); len(got) != 53 || strings.HasPrefix(got[len(got)-1], "h") {
		t.Errorf("behind the first page %d are told: %q", len(got), got)
	}
	if got := paged.told(t); len(got) != 50 || !strings.HasPrefix(got[0], "h") {
		t.Errorf("then %d are told: %q", len(got), got)
	}
	paged.tells(t)
	// Another process goes on from any page, and one that begins receives all.
	next := &reader{store: w.store, at: first.Next}
	if got := next.told(t); len(got) != 53 {
		t.Errorf("another process is told %d", len(got))
	}
	late := &reader{store: paged.store}
	if got := late.told(t); len(got) != 110 {
		t.Errorf("one that begins is told %d", len(got))
	}
}

// A transaction that is open for an hour, in any database of the server, must not make every poll read the changes of that hour.
func TestChanges_AnOpenTransactionCostsNothing(t *testing.T) {
	t.Parallel()
	w := setup(t)
	r := &reader{store: w.store}
	r.told(t)
	held, err := w.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Rollback(context.Background()) }()
	if _, err := held.Exec(t.Context(), "INSERT INTO changes (version, company_id) VALUES (1, 'held')"); err != nil {
		t.Fatal(err)
	}
	other := connect(t, w.dsn)
	if _, err := other.Exec(t.Context(), "INSERT INTO changes (version, company_id, user_id) SELECT n, 'c', 'u' || n FROM generate_series(1, 20000) AS n"); err != nil {
		t.Fatal(err)
	}
	if got := r.told(t); len(got) != 20_000 {
		t.Fatalf("%d are told", len(got))
	}
	read := func() (blocks int64) {
		// Of the table and its indexes, by all who have reported so far.
		if _, err := other.Exec(t.Context(), "SELECT pg_stat_clear_snapshot()"); err != nil {
			t.Fatal(err)
		}
		if err := other.QueryRow(t.Context(), `SELECT coalesce(sum(idx_tup_fetch), 0)::bigint + coalesce(sum(seq_tup_read), 0)::bigint
			FROM pg_stat_user_tables WHERE relname = 'changes'`).Scan(&blocks); err != nil {
			t.Fatal(err)
		}
		return blocks
	}
	before := read()
	for range 100 {
		r.tells(t)
	}
	w.store.Close() // so that its connections report
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = enginetest.Eventually(ctx, func() bool { return read()-before > 100_000 })
	if rows := read() - before; rows > 100_000 { // the reads of before may be reported late
		t.Errorf("100 polls have read %d rows", rows)
	}
}

func TestChanges_AStandbyIsNotRead(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "CREATE OR REPLACE FUNCTION public.data_origin() RETURNS text LANGUAGE sql AS $$ SELECT NULL::text $$")
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x')", "INSERT INTO user_directory (user_id, company_id) VALUES ('u', 'acme')")
	if users, err := w.store.Users(t.Context(), []string{"u"}); err != nil || len(users) != 1 || users[0].Origin != "" {
		t.Errorf("%+v, %v", users, err)
	}
	if c, err := w.store.Company(t.Context(), "acme"); err != nil || c.Origin != "" {
		t.Errorf("%+v, %v", c, err)
	}
	if page, err := w.store.Changes(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("%+v, %v", page, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.store.Changes(ctx, ""); err == nil {
		t.Error("a poll that is cancelled succeeds")
	}
	if _, err := w.store.Changes(t.Context(), "no position"); err == nil {
		t.Error("what is no position is taken for one")
	}
}

// The number of rows at which a poll of the whole could not be done in its time was 3.7 million: set TENANTFLOW_TEST_CHANGES to it.
func TestChanges_ABacklogIsReadInBoundedSteps(t *testing.T) {
	t.Parallel()
	rows := enginetest.Number(t, "TENANTFLOW_TEST_CHANGES", 60_000)
	w := setup(t)
	r := &reader{store: w.store}
	r.told(t)
	w.exec(t, fmt.Sprintf("INSERT INTO changes (version, company_id, user_id) SELECT i, 'c' || i %% 5000, 'user-' || i FROM generate_series(1, %d) AS i", rows))
	for _, from := range []directory.Position{r.at, ""} {
		told, pages, longest, began := 0, 0, time.Duration(0), time.Now()
		for more := true; more; pages++ {
			start := time.Now()
			page, err := w.store.Changes(t.Context(), from)
			if err != nil {
				t.Fatal(err)
			}
			longest = max(longest, time.Since(start))
			told += len(page.Changes)
			from, more = page.Next, page.More
		}
		if told != rows || pages != rows/10_000+1 {
			t.Errorf("%d of %d rows are told in %d pages", told, rows, pages)
		}
		t.Logf("%d rows in %d pages: %s, the longest page %s", rows, pages, time.Since(began).Round(time.Millisecond), longest.Round(time.Millisecond))
	}
}
