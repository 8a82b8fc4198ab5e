package task_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/task"
)

func TestTask_WhatItPublishedIsKnownUntilItIsDone(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	s := openStore(t, dsn, "a", 0)
	l := claim(t, s, create(t, s, "t", spec(1)).ID)
	one, two := task.Identity("/s", "1"), task.Identity("/s", "2")
	c := chunk(1, task.Counts{"published": 1}, `{}`)
	c.Identities = [][]byte{one}
	for range 2 { // an answer that was lost
		if err := l.Propose(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	known, err := l.Known(t.Context(), [][]byte{one, two})
	if err != nil || !known[string(one)] || known[string(two)] {
		t.Errorf("known: %v, %v", known, err)
	}
	if more, err := l.Forget(t.Context()); err != nil || more {
		t.Fatalf("more to forget: %t, %v", more, err)
	}
	if err := l.Finish(t.Context(), task.Done, ""); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var left int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM task_identities").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d identities are left, %v", left, err)
	}
}

// A replay may have published millions of events. What is kept of them goes in pieces: one statement for all would not end in time, and the
// task never.
func TestTask_ForgetsWhatItPublishedInPieces(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	s := openStore(t, dsn, "a", 0)
	made := create(t, s, "t", spec(1))
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, statement := range []string{
		`CREATE FUNCTION few() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF (SELECT count(*) FROM gone) > 5000 THEN RAISE EXCEPTION 'too many at a time'; END IF;
			RETURN NULL;
		END $$`,
		"CREATE TRIGGER few AFTER DELETE ON task_identities REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION few()",
		"INSERT INTO task_identities (task_id, identity) SELECT '" + made.ID + "', decode(md5(i::text), 'hex') FROM generate_series(1, 12000) i",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := (&numbers{}).runner(s, nil).Run(t.Context(), made.ID); err != nil || got.State != task.Done {
		t.Fatalf("got %+v, %v", got, err)
	}
	var left int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM task_identities").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d identities are left, %v", left, err)
	}
}

// seeing decides by what is published already, as a replay does by what is stored.
type seeing struct{ *numbers }

type seeingWork struct{ *numbersWork }

func (s seeing) Open(ctx context.Context, l *task.Lease) (task.Work, error) {
	w, err := s.numbers.Open(ctx, l)
	if err != nil {
		return nil, err
	}
	return seeingWork{w.(*numbersWork)}, nil
}

func (w seeingWork) Decide(ctx context.Context) (*task.Chunk, error) {
	c, err := w.numbersWork.Decide(ctx)
	if c != nil && slices.Contains(w.published, w.at().At) {
		c.Counts, c.Publish = task.Counts{"already_there": 10}, nil
	}
	return c, err
}

// A process that dies between publishing and accounting leaves its decision. Without it, the next one would see the events that
// were published, and count them as there before.
func TestTask_ADecisionIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]bool{"kept": false, "taken out": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := postgrestest.New(t)
			a, b := openStore(t, dsn, "a", 400*time.Millisecond), openStore(t, dsn, "b", 0)
			id := create(t, a, "t", spec(50)).ID
			n := &numbers{}
			kinds := map[string]task.Kind{task.Replay: seeing{n}}
			dying, die := context.WithCancel(t.Context())
			defer die()
			chunks := 0
			task.NewRunner(a, task.RunnerConfig{Kinds: kinds, Poll: 10 * time.Millisecond, OnStep: func(s task.Step) {
				if s == task.StepPublished {
					if chunks++; chunks == 3 {
						a.Close()
						die()
					}
				}
			}}).Serve(dying)
			if forget {
				conn, err := pgx.Connect(t.Context(), dsn)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close(context.Background()) }()
				if _, err := conn.Exec(t.Context(), "UPDATE tasks SET pending = NULL"); err != nil {
					t.Fatal(err)
				}
			}
			got, err := task.NewRunner(b, task.RunnerConfig{Kinds: kinds}).Run(t.Context(), id)
			if err != nil || got.State != task.Done {
				t.Fatalf("%+v, %v", got, err)
			}
			if right := got.Counts["published"] == 25; right == forget {
				t.Errorf("the counts are %v", got.Counts)
			}
		})
	}
}
