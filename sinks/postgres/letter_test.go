package postgres_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/sinks/postgres"
)

// letterBook is a store and a pool over one database.
func letterBook(t *testing.T) (*postgres.Store, *pgxpool.Pool) {
	t.Helper()
	dsn := postgrestest.New(t)
	store, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return store, pool
}

func letterRefs(from, to int, company string) (all []postgres.LetterRef) {
	for i := from; i < to; i++ {
		all = append(all, postgres.LetterRef{Origin: events.Origin{Group: "g.usage", Topic: "usage.events", Partition: i % 3, Offset: int64(i)},
			Reason: events.InvalidData, Company: company, Source: "/app", ID: fmt.Sprint("e-", i)})
	}
	return all
}

func originsOf(refs []postgres.LetterRef) (all []events.Origin) {
	for _, r := range refs {
		all = append(all, r.Origin)
	}
	return all
}

func TestDropLetters_IsAudited(t *testing.T) {
	t.Parallel()
	store, pool := letterBook(t)
	exec := func(query string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	exec("INSERT INTO companies (company_id, name, billing_email) VALUES ('acme', 'Acme', 'a@b.example'), ('beta', 'Beta', 'b@b.example')")
	refs := append(append(letterRefs(0, 4, "acme"), letterRefs(4, 6, "unknown\x00")...), letterRefs(6, 8, "beta")...)
	refs[1].ID = "\xff\x00"
	for round, want := range []int{8, 0} {
		n, err := store.DropLetters(t.Context(), refs, postgres.Drop{ID: fmt.Sprint("run-", round), By: "ann@host", Why: "test data\nno more"})
		if err != nil || n != want {
			t.Fatalf("round %d: %d dropped, %v; want %d", round, n, err, want)
		}
	}
	changes, err := store.LetterChanges(t.Context(), originsOf(refs))
	if err != nil || len(changes) != 8 {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	if c := changes[refs[0].Origin]; c.State != postgres.LetterDropped || c.By != "ann@host" || c.Why != "test data\nno more" || c.At.IsZero() {
		t.Errorf("%+v", c)
	}
	var records, letters int
	err = pool.QueryRow(t.Context(), `SELECT count(*), sum(json_array_length(details::json -> 'letters')) FROM audit_log
		WHERE action = 'dead_letters.dropped' AND event_source = '/tenantflow/dlq' AND event_id = 'run-0'`).Scan(&records, &letters)
	if err != nil || records != 2 || letters != 6 {
		t.Errorf("%d audit records with %d letters, %v; want one of each company, with 6", records, letters, err)
	}
	if faults, err := store.VerifyAudit(t.Context(), ""); err != nil || len(faults) > 0 {
		t.Errorf("the chains are broken: %v, %v", faults, err)
	}
}

// Only open letters change, also by two at the same time.
func TestPutLetters_ChangesOnlyOpenLetters(t *testing.T) {
	t.Parallel()
	store, pool := letterBook(t)
	refs := letterRefs(0, 200, "")
	put := func(to postgres.LetterState, refs []postgres.LetterRef) (changed int) {
		err := pgx.BeginFunc(context.WithoutCancel(t.Context()), pool, func(tx pgx.Tx) error {
			done, err := postgres.PutLetters(t.Context(), tx, refs, postgres.LetterChange{State: to, By: "ann", Why: "w", Task: "t-1"})
			changed = len(done)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return changed
	}
	if n := put(postgres.LetterOpen, refs[:50]); n != 50 {
		t.Errorf("%d rows of open letters, want 50", n)
	}
	var wait sync.WaitGroup
	var redriven, dropped int
	reversed := make([]postgres.LetterRef, len(refs))
	for i, r := range refs {
		reversed[len(refs)-1-i] = r
	}
	wait.Go(func() { redriven = put(postgres.LetterRedriven, refs) })
	wait.Go(func() { dropped = put(postgres.LetterDropped, reversed) })
	wait.Wait()
	if redriven+dropped != 200 || redriven != 0 && dropped != 0 {
		t.Errorf("%d redriven and %d dropped, want all 200 in one state", redriven, dropped)
	}
	changes, err := store.LetterChanges(t.Context(), originsOf(letterRefs(0, 300, "")))
	if err != nil || len(changes) != 200 {
		t.Fatalf("%d changes, %v; want 200", len(changes), err)
	}
	if c := changes[refs[10].Origin]; c.Task != "t-1" || c.State == postgres.LetterOpen {
		t.Errorf("%+v", c)
	}
}

func TestHandledLetters_LeavesOutOpenOnes(t *testing.T) {
	t.Parallel()
	store, pool := letterBook(t)
	refs := letterRefs(0, 10, "")
	refs[9].Reason = events.Conflict
	for state, of := range map[postgres.LetterState][]postgres.LetterRef{
		postgres.LetterOpen: refs[:3], postgres.LetterRedriven: refs[3:5], postgres.LetterDropped: refs[5:6], postgres.LetterSettled: refs[6:],
	} {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := postgres.PutLetters(t.Context(), tx, of, postgres.LetterChange{State: state, By: "ann", Why: "w"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := store.HandledLetters(t.Context())
	want := map[postgres.LetterKind]int64{{Topic: "usage.events", Reason: events.InvalidData}: 6, {Topic: "usage.events", Reason: events.Conflict}: 1}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}
