package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
)

// The kinds of tasks.
const (
	Replay  = "replay"
	Redrive = "redrive"
)

// A State is where a task is in its life.
type State string

// The states.
const (
	Running  State = "running"
	Stopping State = "stopping" // asked to stop; its process has not seen it yet
	Stopped  State = "stopped"  // may be resumed
	Done     State = "done"
	Failed   State = "failed" // for the reason in the message; may be resumed
)

// Active reports whether a process works on the task, or should. A topic has at most one active task.
func (s State) Active() bool { return s == Running || s == Stopping }

// Counts is how many records had which outcome, by the outcome's name. Counts that are zero may be missing.
type Counts map[string]int64

// Plus is the sum of two counts.
func (c Counts) Plus(d Counts) Counts {
	sum := maps.Clone(c)
	if sum == nil {
		sum = Counts{}
	}
	for name, n := range d {
		sum[name] += n
	}
	return sum
}

// Published is the name of the count of published events in every kind of task. What a stop reports is this count.
const Published = "published"

// A Task is a row of the table tasks.
type Task struct {
	ID         string          `json:"task_id"`
	Kind       string          `json:"kind"`
	Topic      string          `json:"topic"` // with its prefix
	Spec       json.RawMessage `json:"spec"`
	State      State           `json:"state"`
	Position   json.RawMessage `json:"position"`
	Counts     Counts          `json:"counts"`
	Pending    *Chunk          `json:"-"`
	Unsure     int64           `json:"unsure,omitempty"` // events of a chunk that was begun: some of them may be published
	LeaseUntil *time.Time      `json:"lease_until,omitempty"`
	Owner      string          `json:"owner,omitempty"`
	Message    string          `json:"message,omitempty"`
	CreatedBy  string          `json:"created_by,omitempty"`
	CreatedAt  time.Time       `json:"created_at"`
	UpdatedAt  time.Time       `json:"updated_at"`
	FinishedAt *time.Time      `json:"finished_at,omitempty"`

	fence int64
}

// A Chunk is a decision about the next records of a task.
type Chunk struct {
	Position json.RawMessage `json:"position"` // behind the records
	Counts   Counts          `json:"counts"`   // what they add to the task's
	// Publish is what is to be published, in the form of the kind; nil: nothing is.
	Publish json.RawMessage `json:"publish,omitempty"`
	// Identities are the events that are to be published, see [Identity]. They are kept until the task is done, for
	// [Lease.Known].
	Identities [][]byte `json:"-"`
}

// An ActiveError says that a topic has an active task already.
type ActiveError struct{ Topic, ID string }

func (e *ActiveError) Error() string {
	return fmt.Sprintf("the task %s is active on %s, and a topic has at most one; look at it with `tenantflow task show %[1]s`, or stop it with `tenantflow task stop %[1]s`", e.ID, e.Topic)
}

// A StateError says that a task is in a state in which it can't be stopped or resumed.
type StateError struct {
	ID    string
	State State
	Asked string // "stopped" or "resumed"
}

func (e *StateError) Error() string {
	return fmt.Sprintf("the task %s is %s: it can't be %s", e.ID, e.State, e.Asked)
}

// A FatalError, returned by a [Work], fails the task: trying again would not help.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return e.Err.Error() }

func (e *FatalError) Unwrap() error { return e.Err }

// Fatalf makes a FatalError.
func Fatalf(format string, args ...any) error { return &FatalError{fmt.Errorf(format, args...)} }

// The errors that callers branch on.
var (
	// ErrNotFound is returned for an id that no task has.
	ErrNotFound = errors.New("there is no such task")
	// ErrLost is returned by a lease that another process has taken over.
	ErrLost = errors.New("another process has taken over the task")
	// ErrBusy is returned by a claim of a task that another process works on.
	ErrBusy = errors.New("another process works on the task")
)
