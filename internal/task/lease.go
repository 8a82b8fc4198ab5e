package task

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Lease is the right to work on a task, for as long as it is renewed and no other process has claimed the task. Its
// methods return ErrLost once one has. One goroutine uses it, beside the one that renews it.
type Lease struct {
	Task  *Task // as this process knows it: position, counts and what is pending are those in the row
	store *Store
	fence int64
	noted func(string)
}

// Waiting notes what the work on the task waits for, for people to see; empty: nothing. It is for the goroutine that works.
func (l *Lease) Waiting(what string) {
	if l.noted != nil {
		l.noted(what)
	}
}

// Claim claims a task. The error is ErrBusy where another process holds its lease, or where it is not active.
func (s *Store) Claim(ctx context.Context, id string) (*Lease, error) {
	return s.claim(ctx, id, nil)
}

// ClaimNext claims the oldest active task of some kinds that no living process works on. The error is ErrBusy where there
// is none.
func (s *Store) ClaimNext(ctx context.Context, kinds []string) (*Lease, error) {
	return s.claim(ctx, "", kinds)
}

func (s *Store) claim(ctx context.Context, id string, kinds []string) (*Lease, error) {
	t, err := s.one(ctx, "claim", s.owner, s.lease, id, kinds)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrBusy
	}
	if err != nil {
		return nil, err
	}
	return &Lease{Task: t, store: s, fence: t.fence}, nil
}

// Renew makes the lease last from now on, with words for people about what the task waits for, and returns the state: Stopping
// asks the process to stop.
func (l *Lease) Renew(ctx context.Context, message string) (State, error) {
	return l.state(ctx, "renew", l.Task.ID, l.fence, l.store.lease, message)
}

// Propose stores the decision about a chunk. Publish it only when Propose has returned.
func (l *Lease) Propose(ctx context.Context, c *Chunk) error {
	pending, err := json.Marshal(c)
	if err != nil {
		return Fatalf("write the decision about a chunk: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = pgx.BeginFunc(ctx, l.store.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, statement("propose"), l.Task.ID, l.fence, pending, l.store.lease)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrLost
		}
		if len(c.Identities) > 0 {
			_, err = tx.Exec(ctx, statement("identities"), l.Task.ID, c.Identities)
		}
		return err
	})
	if err != nil {
		return explain("store the decision about a chunk", err)
	}
	l.Task.Pending = c
	return nil
}

// Known returns those of some identities that the task has proposed to publish before.
func (l *Lease) Known(ctx context.Context, identities [][]byte) (map[string]bool, error) {
	known := map[string]bool{}
	if len(identities) == 0 {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := l.store.pool.Query(ctx, statement("known"), l.Task.ID, identities)
	if err != nil {
		return nil, explain("look for what the task has published", err)
	}
	var one []byte
	if _, err = pgx.ForEachRow(rows, []any{&one}, func() error {
		known[string(one)] = true
		return nil
	}); err != nil {
		return nil, explain("look for what the task has published", err)
	}
	return known, nil
}

// Advance accounts for a chunk: position and counts move together, and nothing is pending any more. The chunk is the pending
// one, with what publishing it has changed in its counts, or one of which nothing was to be published. It may be repeated
// after an error.
func (l *Lease) Advance(ctx context.Context, c *Chunk) (State, error) { return l.advance(ctx, c, nil) }

// advance is Advance with what the work changes beside the row, in one transaction; nil: nothing.
func (l *Lease) advance(ctx context.Context, c *Chunk, also func(context.Context, pgx.Tx) error) (State, error) {
	counts := l.Task.Counts.Plus(c.Counts)
	args := []any{l.Task.ID, l.fence, []byte(c.Position), counts, l.store.lease}
	var state State
	var err error
	if also == nil {
		state, err = l.state(ctx, "advance", args...)
	} else {
		state, err = l.advanceWith(ctx, args, also)
	}
	if err == nil {
		l.Task.Position, l.Task.Counts, l.Task.Pending, l.Task.UpdatedAt = c.Position, counts, nil, time.Now().UTC()
	}
	return state, err
}

func (l *Lease) advanceWith(ctx context.Context, args []any, also func(context.Context, pgx.Tx) error) (state State, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = pgx.BeginFunc(ctx, l.store.pool, func(tx pgx.Tx) error {
		// The row first: a process that has lost its lease changes nothing.
		if err := tx.QueryRow(ctx, statement("advance"), args...).Scan(&state); err != nil {
			return err
		}
		return also(ctx, tx)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", ErrLost
	case err != nil:
		return "", explain("advance a task", err)
	}
	return state, nil
}

// forgotten is how many identities are deleted at a time.
const forgotten = 5000

// Forget deletes some of the identities that the task has published, and says whether there may be more. It is for a task that has
// decided about everything.
func (l *Lease) Forget(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tag, err := l.store.pool.Exec(ctx, statement("forget"), l.Task.ID, l.fence, forgotten)
	if err != nil {
		return true, explain("forget what a task has published", err)
	}
	return tag.RowsAffected() == forgotten, nil
}

// Finish ends the task in a state: Done, after Forget, Stopped or Failed.
func (l *Lease) Finish(ctx context.Context, state State, message string) error {
	t, err := l.store.one(ctx, "finish", l.Task.ID, l.fence, state, message)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrLost
	}
	if err != nil {
		return err
	}
	l.Task = t
	return nil
}

// Release gives the lease back, so that another process need not wait for its end. The task stays active.
func (l *Lease) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := l.store.pool.Exec(ctx, statement("release"), l.Task.ID, l.fence); err != nil {
		return explain("give a task back", err)
	}
	return nil
}

// state runs a statement that returns the state of the task, or nothing where another process has claimed it.
func (l *Lease) state(ctx context.Context, name string, args ...any) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var state State
	err := l.store.pool.QueryRow(ctx, statement(name), args...).Scan(&state)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", ErrLost
	case err != nil:
		return "", explain(name+" a task", err)
	}
	return state, nil
}
