package enginetest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// KillSelf kills this process with SIGKILL. It does not return.
func KillSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way; nothing more must happen
}

// KillAt returns what a child calls at each of its steps: it kills the process when it comes by one of them for the nth time, from 1.
func KillAt[Step comparable](at Step, nth int32) func(Step) {
	var count atomic.Int32
	return func(s Step) {
		if s == at && count.Add(1) == nth {
			KillSelf()
		}
	}
}

// A Child is this test binary once more, as a process of its own, which finds in an environment variable that it is no test.
type Child struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended
}

// StartChild starts a child with its task in a variable, as JSON. It is killed at the test's end.
func StartChild(t testing.TB, variable string, task any) *Child {
	t.Helper()
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	c := &Child{cmd: exec.CommandContext(context.Background(), os.Args[0]), ended: make(chan struct{})} // the cleanup ends it
	c.cmd.Env = append(os.Environ(), variable+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // ends a stopped process as well
		<-c.ended
	})
	return c
}

// RunChild is the whole of a child: it reads the task, does it, and returns the exit code.
func RunChild[Task any](text string, do func(Task) error) int {
	var task Task
	err := json.Unmarshal([]byte(text), &task)
	if err == nil {
		err = do(task)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

// Process is for signals.
func (c *Child) Process() *os.Process { return c.cmd.Process }

// killed reports whether the child was ended by SIGKILL. It has ended.
func (c *Child) killed() bool {
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}

// Live waits for a while in which the child must not end.
func (c *Child) Live(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-c.ended:
		t.Fatalf("the child ended: %v", c.err)
	case <-time.After(d):
	}
}

// Kill kills the child, which must be there yet.
func (c *Child) Kill(t testing.TB) {
	t.Helper()
	_ = c.cmd.Process.Kill() // an error means that it has ended before
	if <-c.ended; !c.killed() {
		t.Fatalf("the child ended before it was killed: %v", c.err)
	}
}

// UntilKilled waits until the child has killed itself, and reports false if all was done before it came to that: when done says so, or,
// without one, when it ends without an error.
func (c *Child) UntilKilled(t testing.TB, where string, done func() bool) bool {
	t.Helper()
	tick, patience := time.NewTicker(200*time.Millisecond), time.After(Patience)
	defer tick.Stop()
	for {
		select {
		case <-c.ended:
			if !c.killed() && (c.err != nil || done != nil) {
				t.Fatalf("the child to be killed at %s ended otherwise: %v", where, c.err)
			}
			return c.killed()
		case <-tick.C:
			if done != nil && done() {
				c.Kill(t) // it never came by that step
				return false
			}
		case <-patience:
			t.Fatalf("the child to be killed at %s did not end", where)
		}
	}
}

// Number is a number from the environment, by which a test becomes a campaign.
func Number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is no number above 0", name, text)
	}
	return n
}
