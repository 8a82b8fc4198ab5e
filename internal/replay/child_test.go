package replay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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

func runChild(config string) int {
	var c crash
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 2
	}
	var count atomic.Int32
	onStep := func(s task.Step) {
		if s == c.Step && count.Add(1) == c.Nth {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way; nothing more must happen
		}
	}
	var s *station
	// A store may be away at the beginning as well.
	opening, cancel := context.WithTimeout(context.Background(), enginetest.Patience)
	defer cancel()
	err := retry.Do(opening, func() (err error) {
		s, err = c.World.open(opening, onStep, c.World.chunks)
		return err
	}, func(error) error { return nil })
	if err == nil {
		_, err = s.runner.Run(context.Background(), c.Task)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

// A childProcess is a process that replays.
type childProcess struct {
	cmd   *exec.Cmd
	said  bytes.Buffer
	ended chan error
}

func (w *world) spawn(t testing.TB, c crash) *childProcess {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	p := &childProcess{cmd: exec.CommandContext(context.Background(), os.Args[0]), ended: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(config))
	p.cmd.Stderr = &p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.ended <- p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// wait waits for a while in which the child must not end.
func (p *childProcess) wait(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case err := <-p.ended:
		t.Fatalf("the child ended: %v\n%s", err, p.said.String())
	case <-time.After(d):
	}
}

// kill kills the child, which must be there yet.
func (p *childProcess) kill(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-p.ended; !killed(p.cmd) {
		t.Fatalf("the child ended before: %v\n%s", err, p.said.String())
	}
}

func killed(cmd *exec.Cmd) bool {
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}

// crashAt runs a child that kills itself at a step. It is false where the task has ended before.
func (w *world) crashAt(t testing.TB, id string, step task.Step, nth int32) bool {
	t.Helper()
	p := w.spawn(t, crash{w, id, step, nth})
	select {
	case err := <-p.ended:
		if err != nil && !killed(p.cmd) {
			t.Fatalf("the child that was to kill itself at %s ended otherwise: %v\n%s", step, err, p.said.String())
		}
		return err != nil
	case <-time.After(enginetest.Patience):
		t.Fatalf("the child that was to kill itself at %s did not end", step)
		return false
	}
}
