package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/certs"
	"tenantflow/sinks/postgres"
)

// A row is a row of the table as it is read. Its fields are the table's columns.
type row struct {
	TaskID     string `db:"task_id"`
	Kind       string
	Topic      string
	Spec       []byte
	State      State
	Position   []byte
	Counts     Counts
	Pending    []byte
	LeaseUntil *time.Time `db:"lease_until"`
	Owner      string
	Fence      int64
	Message    string
	CreatedBy  string     `db:"created_by"`
	CreatedAt  time.Time  `db:"created_at"`
	UpdatedAt  time.Time  `db:"updated_at"`
	FinishedAt *time.Time `db:"finished_at"`
}

// readTask reads a row.
func readTask(from pgx.CollectableRow) (Task, error) {
	r, err := pgx.RowToStructByName[row](from)
	if err != nil {
		return Task{}, err
	}
	t := Task{
		ID: r.TaskID, Kind: r.Kind, Topic: r.Topic, Spec: r.Spec, State: r.State, Position: r.Position, Counts: r.Counts,
		LeaseUntil: r.LeaseUntil, Owner: r.Owner, Message: r.Message, CreatedBy: r.CreatedBy,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), FinishedAt: r.FinishedAt, fence: r.Fence,
	}
	if r.Pending != nil {
		t.Pending = &Chunk{}
		if err := json.Unmarshal(r.Pending, t.Pending); err != nil {
			return Task{}, fmt.Errorf("read what is pending of task %s: %w", r.TaskID, err)
		}
		t.Unsure = t.Pending.Counts[Published]
	}
	if !t.State.Active() {
		t.Owner = ""
	}
	if t.State == Stopped {
		t.Message = stopped(&t)
	}
	return t, nil
}

// stopped says what a stopped task leaves behind.
func stopped(t *Task) string {
	text := fmt.Sprintf("stopped with %d events published: they stay, and `tenantflow task resume %s` goes on behind them", t.Counts[Published], t.ID)
	if t.Unsure > 0 {
		text += fmt.Sprintf("; up to %d more were being published when its process ended", t.Unsure)
	}
	return text
}

// explain says what was being done when an error of Postgres came.
func explain(doing string, err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s in Postgres: %w", doing, certs.ExplainPostgres(err))
}

// fatal reports whether waiting would not mend an error.
func fatal(err error) bool {
	var own *FatalError
	return errors.As(err, &own) || postgres.Classify(err) == postgres.Fatal
}

// process names this process.
func process() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s %d", host, os.Getpid())
}
