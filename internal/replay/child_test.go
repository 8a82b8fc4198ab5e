package replay_test

import (
	"context"
	"testing"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/retry"
	"tenantflow/internal/task"
)

// childEnv carries a crash as JSON: then the test binary is not a test but a process that replays, and kills itself.
const childEnv = "REPLAY_CRASH_CHILD"

// A crash is where a child kills itself.
type crash struct {
	World *world
	Task  string
	Step  task.Step
	Nth   int32 // the time it comes by; from 1. 0: it does not kill itself
}

func (c crash) run() error {
	onStep := enginetest.KillAt(c.Step, c.Nth)
	var s *station
	// A store may be away at the beginning as well.
	opening, cancel := context.WithTimeout(context.Background(), enginetest.Patience)
	defer cancel()
	err := retry.Do(opening, func() (err error) {
		s, err = c.World.open(opening, lease, onStep, c.World.chunks)
		return err
	}, func(error) error { return nil })
	if err == nil {
		_, err = s.runner.Run(context.Background(), c.Task)
	}
	return err
}

// spawn starts a process that replays.
func (w *world) spawn(t testing.TB, c crash) *enginetest.Child {
	t.Helper()
	return enginetest.StartChild(t, childEnv, c)
}

// crashAt runs a child that kills itself at a step. It is false where the task has ended before.
func (w *world) crashAt(t testing.TB, id string, step task.Step, nth int32) bool {
	t.Helper()
	return w.spawn(t, crash{w, id, step, nth}).UntilKilled(t, string(step), nil)
}
