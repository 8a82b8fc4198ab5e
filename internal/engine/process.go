package engine

import (
	"os/exec"
	"syscall"
	"time"
)

// A Process is any program run as the engines are: in a process group of its own, and killed by the kernel when this
// process dies.
type Process struct{ child *child }

// Run starts the command. Its standard streams are those set in it; files, not writers, so that the end of the process
// is the end of the command.
func Run(cmd *exec.Cmd) (*Process, error) {
	c, err := spawn(cmd)
	if err != nil {
		return nil, err
	}
	return &Process{c}, nil
}

// Pid is the process id.
func (p *Process) Pid() int { return p.child.pid() }

// Exited returns a channel that is closed when the process has ended and Err returns how.
func (p *Process) Exited() <-chan struct{} { return p.child.exited }

// Err is how the process ended: nil for exit status 0, an *exec.ExitError for anything else. Before its end it is nil.
func (p *Process) Err() error {
	if p.child.alive() {
		return nil
	}
	return p.child.err
}

// Kill ends the process with SIGKILL and returns when it and its descendants are gone.
func (p *Process) Kill() error {
	if !p.child.alive() {
		return nil
	}
	return p.child.kill()
}

// Stop ends the process with SIGTERM, and kills it when that takes longer than the limit, which is then the error. How
// it ended is Err.
func (p *Process) Stop(limit time.Duration) error {
	if !p.child.alive() {
		return nil
	}
	return p.child.stop(syscall.SIGTERM, limit)
}
