package task_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/task"
)

// takeOut changes what Postgres does.
func takeOut(t *testing.T, dsn string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// before makes every update of a task do something first.
func before(do string) []string {
	return []string{
		"CREATE FUNCTION public.taken_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + do + " RETURN NEW; END $$",
		"CREATE TRIGGER taken_out BEFORE UPDATE ON public.tasks FOR EACH ROW EXECUTE FUNCTION public.taken_out()",
	}
}

// Without the index that allows one active task a topic, two at once publish everything twice.
func TestTask_WithoutOneATopicTwoPublishTheSame(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	takeOut(t, dsn, "DROP INDEX public.tasks_active")
	s, n := openStore(t, dsn, "a", 0), &numbers{}
	for _, one := range []*task.Task{create(t, s, "t", spec(30)), create(t, s, "t", spec(30))} {
		if _, err := n.runner(s, nil).Run(t.Context(), one.ID); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Sort(n.published); !slices.Equal(n.published, []int{0, 0, 10, 10, 20, 20}) {
		t.Errorf("published %v: something else keeps two tasks apart", n.published)
	}
}

// Without the fence of the lease, a process that has lost it moves the task back, and what another one has done is done again.
func TestTask_WithoutTheFenceALateProcessMovesItBack(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	a, b, n := openStore(t, dsn, "a", 0), openStore(t, dsn, "b", 0), &numbers{}
	id := create(t, a, "t", spec(50)).ID
	old := claim(t, a, id)
	takeOut(t, dsn, append([]string{"UPDATE public.tasks SET lease_until = NULL"}, before("NEW.fence := OLD.fence;")...)...)
	n.fail = func(at int) error {
		if at != 40 {
			return nil
		}
		// The old process wakes up when the other one is nearly done.
		_, err := old.Advance(t.Context(), chunk(10, task.Counts{"published": 5, "already_there": 5}, ""))
		if errors.Is(err, task.ErrLost) {
			t.Error("something else than the fence keeps the old process out")
		}
		return task.Fatalf("the process ends here")
	}
	if _, err := n.runner(b, nil).Run(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Resume(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.fail = nil
	if _, err := n.runner(b, nil).Run(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(n.published, []int{0, 10, 20, 30, 40}) {
		t.Errorf("published %v, each once: something else than the fence keeps the old process out", n.published)
	}
}

// Counts that move in another transaction than the position are wrong after a kill between the two.
func TestTask_WithoutOneTransactionAKillCountsTwice(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	s, n := openStore(t, dsn, "a", 0), &numbers{}
	id := create(t, s, "t", spec(50)).ID
	// The counts of the third chunk are written; its position, and that it is not pending any more, never are.
	takeOut(t, dsn, before(`IF (NEW.counts->>'published')::int = 15 AND (OLD.counts->>'published')::int = 10 THEN
		NEW.position := OLD.position; NEW.pending := OLD.pending; END IF;`)...)
	n.fail = func(at int) error {
		if at == 30 {
			return task.Fatalf("the process ends here")
		}
		return nil
	}
	if _, err := n.runner(s, nil).Run(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	takeOut(t, dsn, "DROP TRIGGER taken_out ON public.tasks",
		`UPDATE public.tasks SET position = '{"at": 20}', pending = '{"position": {"at": 30}, "counts": {"published": 5, "already_there": 5}, "publish": 20}'`)
	if _, err := s.Resume(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.fail = nil
	got, err := n.runner(s, nil).Run(t.Context(), id)
	if err != nil || got.State != task.Done {
		t.Fatalf("%+v, %v", got, err)
	}
	if got.Counts["published"] == 25 {
		t.Errorf("%v: counts that moved alone do no harm", got.Counts)
	}
}
