package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

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

// told returns what a poll tells, as company or company/user, sorted.
func (r *reader) told(t *testing.T) []string {
	t.Helper()
	changes, next, err := r.store.Changes(t.Context(), r.at)
	if err != nil {
		t.Fatal(err)
	}
	if next < r.at {
		t.Errorf("the position went from %d back to %d", r.at, next)
	}
	r.at = next
	names := []string{}
	for _, c := range changes {
		name := c.CompanyID
		if c.UserID != "" {
			name += "/" + c.UserID
		}
		if c.Version == 0 {
			t.Errorf("%s has no version", name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
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
	late := &reader{store: w.store} // who comes later hears all that is kept
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
	// Who asks again from an old position, or somebody else, misses nothing either.
	for _, again := range []*reader{lost, anew} {
		if got := again.told(t); !slices.Contains(got, "acme") || !slices.Contains(got, "cord") {
			t.Errorf("told %q", got)
		}
		again.tells(t)
	}
}

func TestAPositionOfAnotherStoreIsNotGoneBackFrom(t *testing.T) {
	t.Parallel()
	w := setup(t)
	held, err := w.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Rollback(context.Background()) }()
	// A transaction that is under way all the time: the oldest one stays the same.
	if _, err := held.Exec(t.Context(), "INSERT INTO companies (company_id, name, billing_email) VALUES ('held', 'H', 'h@x')"); err != nil {
		t.Fatal(err)
	}
	r := &reader{store: w.store}
	for range 5 {
		r.told(t)
	}
	other := &reader{store: open(t, postgres.Config{DSN: w.dsn}), at: r.at}
	for range 3 {
		other.told(t) // it says where a position goes back
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
	r := &reader{store: w.store}
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
	// As old as the others, and not committed yet when the next call notes how far everybody has read.
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

func TestChangesThatCameWithABackupOfAnotherServerAreRemoved(t *testing.T) {
	t.Parallel()
	w := setup(t)
	r := &reader{store: w.store}
	w.exec(t, "INSERT INTO changes (version, company_id, xid) SELECT n, 'c' || n, (1000000000000 + n)::text::xid8 FROM generate_series(1, 10001) AS n")
	if n := len(r.told(t)); n != 10_001 { // once cannot be wrong
		t.Errorf("%d changes are told", n)
	}
	r.tells(t)
	if removed, err := w.store.PruneChanges(t.Context()); err != nil || removed != 10_001 {
		t.Errorf("removed %d: %v", removed, err)
	}
}

func TestAPositionOfAnotherServerStartsTheFeedAgain(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'A', 'a@x')")
	changes, next, err := w.store.Changes(t.Context(), 1<<60)
	if err != nil || len(changes) != 1 || next == 0 || next >= 1<<60 {
		t.Errorf("told %v, position %d, %v", changes, next, err)
	}
	r := &reader{store: w.store, at: next}
	r.tells(t)
	w.exec(t, "UPDATE companies SET name = 'n'")
	r.tells(t, "acme")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, same, err := w.store.Changes(ctx, next); err == nil || same != next {
		t.Errorf("a poll that fails moves the position to %d: %v", same, err)
	}
}
