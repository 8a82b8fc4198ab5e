package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A child is one run of an engine's process.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has been waited for
	err    error         // how it ended; valid once exited is closed
}

// spawn starts the command in a process group of its own, to be killed by the kernel when this process dies.
//
// The kernel sends that signal when the thread that forked ends, not the process, and the Go runtime ends threads as
// it likes. So a goroutine locks one thread, forks from it, and keeps it until the child is gone.
func spawn(cmd *exec.Cmd) (*child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL

	c := &child{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		close(c.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) alive() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// kill ends the process and its descendants with SIGKILL and waits until none is left.
func (c *child) kill() error {
	// A stopped process can't fork, nor reap: the list stays complete and its pids stay theirs until they are killed.
	// One that the kernel keeps from stopping is killed all the same.
	family, err := c.freeze()
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	for _, pid := range family {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	<-c.exited
	deadline := time.Now().Add(stopLimit)
	for _, pid := range family {
		// Descendants belong to init now, which we can't wait for. A restart may only come after them: PostgreSQL
		// refuses while one of its own still holds the shared memory.
		if err := await(deadline, func() bool { return gone(pid) }); err != nil {
			return fmt.Errorf("wait for the end of process %d: %w", pid, err)
		}
	}
	return nil
}

// stop asks the process to end with sig, and kills it when it has not done so within the limit.
func (c *child) stop(sig syscall.Signal, limit time.Duration) error {
	if err := c.signal(c.pid(), sig); err != nil {
		return err
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c.exited:
		return nil
	case <-t.C:
	}
	if err := c.kill(); err != nil {
		return err
	}
	return fmt.Errorf("process %d did not end within %s of %s and was killed", c.pid(), limit, sig)
}

// freeze stops the process and its descendants where they are, and returns them. None of them runs when it returns:
// each thread stops when the kernel next looks at it, which is after the signal was sent, and until then the process
// still answers, and forks.
func (c *child) freeze() ([]int, error) {
	deadline := time.Now().Add(stopLimit)
	family := []int{c.pid()}
	for i := 0; i < len(family); i++ {
		if err := c.signal(family[i], syscall.SIGSTOP); err != nil {
			return nil, err
		}
		if err := await(deadline, func() bool { return standing(family[i]) }); err != nil {
			return family, fmt.Errorf("wait until process %d stands still: %w", family[i], err)
		}
		family = append(family, childrenOf(family[i])...)
	}
	return family, nil
}

// thaw lets the process and its descendants go on.
func (c *child) thaw() error {
	family := []int{c.pid()}
	for i := 0; i < len(family); i++ {
		family = append(family, childrenOf(family[i])...)
	}
	// The parent comes last, so that none of its children is reaped, and its pid reused, before it got its signal.
	for i := len(family) - 1; i >= 0; i-- {
		if err := c.signal(family[i], syscall.SIGCONT); err != nil {
			return err
		}
	}
	return nil
}

// signal sends sig to the process or one of its descendants. One that is gone already is no error.
func (c *child) signal(pid int, sig syscall.Signal) error {
	var err error
	if pid == c.pid() {
		err = c.cmd.Process.Signal(sig) // knows whether the pid is still its own
	} else {
		err = syscall.Kill(pid, sig)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", sig, pid, err)
	}
	return nil
}

// childrenOf lists the processes whose parent is pid, whichever of its threads forked them.
func childrenOf(pid int) []int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			if p, err := strconv.Atoi(f); err == nil {
				pids = append(pids, p)
			}
		}
	}
	return pids
}

// gone says whether a process has ended; one that has not been waited for yet counts as ended.
func gone(pid int) bool {
	switch stateOf(fmt.Sprintf("/proc/%d/stat", pid)) {
	case 0, 'Z', 'X':
		return true
	default:
		return false
	}
}

// standing says whether each thread of a process is stopped, or has ended.
func standing(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	return err == nil && !slices.ContainsFunc(threads, func(thread string) bool {
		switch stateOf(thread) {
		case 0, 'Z', 'X', 'T', 't':
			return false
		default:
			return true
		}
	})
}

// stateOf returns the letter of a process's or thread's state in a stat file of proc(5), or 0 when it is gone.
func stateOf(stat string) byte {
	b, err := os.ReadFile(stat)
	if err != nil {
		return 0
	}
	// "pid (name) state ...", where the name may hold anything
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ")
	if !ok || rest == "" {
		return 0
	}
	return rest[0]
}

// await polls cond until it holds or the deadline has passed.
func await(deadline time.Time, cond func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if now := <-tick.C; now.After(deadline) {
			return os.ErrDeadlineExceeded
		}
	}
	return nil
}
