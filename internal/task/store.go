package task

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"tenantflow/internal/certs"
)

//go:embed sql/*.sql
var files embed.FS

// statement is one of the embedded files, by its name without ending.
func statement(name string) string {
	text, err := fs.ReadFile(files, "sql/"+name+".sql")
	if err != nil {
		panic(err) // the files are part of the program
	}
	return string(text)
}

// Config is what a Store needs.
type Config struct {
	// DSN is the address of Postgres in pgx's form.
	DSN string

	// Lease is how long a claim holds without being renewed. Default: 30s.
	Lease time.Duration

	// Owner names this process in the rows that it works on. Default: host name and process id.
	Owner string

	Logger *slog.Logger
}

// DefaultLease is how long a claim holds.
const DefaultLease = 30 * time.Second

// timeout bounds one statement, with the wait for a connection.
const timeout = 10 * time.Second

// A Store is the table tasks. It may be used by several goroutines at once.
type Store struct {
	pool  *pgxpool.Pool
	lease time.Duration
	owner string
	log   *slog.Logger
}

// Open opens the table. It does not wait for an answer.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	options, err := certs.Pool(cfg.DSN, cfg.Logger)
	if err != nil {
		return nil, explain("open the tasks", err)
	}
	options.MaxConns = 4 // a task uses two at most
	if options.ConnConfig.ConnectTimeout == 0 {
		options.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if options.ConnConfig.RuntimeParams["application_name"] == "" {
		options.ConnConfig.RuntimeParams["application_name"] = "tenantflow tasks"
	}
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.Owner == "" {
		cfg.Owner = process()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	pool, err := pgxpool.NewWithConfig(ctx, options)
	if err != nil {
		return nil, explain("open the tasks", err)
	}
	return &Store{pool: pool, lease: cfg.Lease, owner: cfg.Owner, log: cfg.Logger}, nil
}

// Close closes the connections.
func (s *Store) Close() { s.pool.Close() }

// New is a task to be made.
type New struct {
	Kind     string
	Topic    string // with its prefix
	Spec     any    // written as JSON
	Position any    // where it begins, written as JSON; nil: {}
	By       string // who asks for it, for people
}

// Create makes a task that any process may claim. The error is an *ActiveError where the topic has an active one.
func (s *Store) Create(ctx context.Context, n New) (*Task, error) {
	spec, err := json.Marshal(n.Spec)
	if err != nil {
		return nil, fmt.Errorf("write the spec of a task: %w", err)
	}
	position := []byte("{}")
	if n.Position != nil {
		if position, err = json.Marshal(n.Position); err != nil {
			return nil, fmt.Errorf("write the position of a task: %w", err)
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make the id of a task: %w", err)
	}
	t, err := s.one(ctx, "create", id.String(), n.Kind, n.Topic, spec, position, n.By)
	if taken(err) {
		return nil, s.active(ctx, n.Topic)
	}
	return t, err
}

// taken reports whether a statement was refused because the topic has an active task.
func taken(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.ConstraintName == "tasks_active"
}

// active is the error that names the active task of a topic.
func (s *Store) active(ctx context.Context, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var id string
	switch err := s.pool.QueryRow(ctx, statement("active"), topic).Scan(&id); {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("another task on %s has ended just now: try again", topic)
	case err != nil:
		return explain("look for the active task", err)
	}
	return &ActiveError{Topic: topic, ID: id}
}

// Show reads a task. The error is ErrNotFound where there is none.
func (s *Store) Show(ctx context.Context, id string) (*Task, error) {
	t, err := s.one(ctx, "show", id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	return t, err
}

// List reads up to limit tasks: the active ones first, then the newest.
func (s *Store) List(ctx context.Context, limit int) ([]Task, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := s.pool.Query(ctx, statement("list"), limit)
	if err != nil {
		return nil, explain("list the tasks", err)
	}
	found, err := pgx.CollectRows(rows, readTask)
	if err != nil {
		return nil, explain("list the tasks", err)
	}
	return found, nil
}

// Stop asks a task to stop. Where no living process works on it, it is stopped when Stop returns; otherwise its state is
// Stopping until its process has seen it. What was published stays. The error is a *StateError where the task has ended.
func (s *Store) Stop(ctx context.Context, id string) (*Task, error) {
	return s.turn(ctx, "stop", id, "stopped")
}

// Resume makes a task that was stopped or has failed active again, for any process to claim. It goes on where it was. The
// error is an *ActiveError where another task is active on its topic, and a *StateError where the task is active or done.
func (s *Store) Resume(ctx context.Context, id string) (*Task, error) {
	return s.turn(ctx, "resume", id, "resumed")
}

// turn changes the state of a task.
func (s *Store) turn(ctx context.Context, how, id, asked string) (*Task, error) {
	t, err := s.one(ctx, how, id)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		now, err := s.Show(ctx, id)
		if err != nil {
			return nil, err
		}
		return nil, &StateError{ID: id, State: now.State, Asked: asked}
	case taken(err):
		now, err := s.Show(ctx, id)
		if err != nil {
			return nil, err
		}
		return nil, s.active(ctx, now.Topic)
	}
	return t, err
}

// Identity is an event in the table task_identities.
func Identity(source, id string) []byte {
	sum := sha256.Sum256([]byte(source + "\n" + id))
	return sum[:16]
}

// one runs a statement that returns a task. The error wraps pgx.ErrNoRows where it returns none.
func (s *Store) one(ctx context.Context, name string, args ...any) (*Task, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := s.pool.Query(ctx, statement(name), args...)
	if err != nil {
		return nil, explain(name+" a task", err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, readTask)
	if err != nil {
		return nil, explain(name+" a task", err)
	}
	return &t, nil
}
