package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNotRunning is returned when an engine that does not run is asked for something that needs its process.
var ErrNotRunning = errors.New("engine is not running")

// An instance is one engine with a fixed address and data directory, over any number of runs. Its methods are those
// that all engines share; they may be called from several goroutines.
type instance struct {
	name    string
	dir     string
	lock    *os.File // held as long as the instance may run
	port    *port
	env     []string
	command func() (*exec.Cmd, error)       // makes the command of a run
	probe   func(ctx context.Context) error // one real request
	stopSig syscall.Signal

	mu  sync.Mutex
	run *child // nil while stopped
}

// Addr is the HOST:PORT the engine listens on.
func (e *instance) Addr() string { return e.port.addr() }

// Port is the port the engine listens on.
func (e *instance) Port() int { return e.port.number }

// LogPath is the file with what the engine's runs have written to standard output and standard error.
func (e *instance) LogPath() string { return filepath.Join(e.dir, e.name+".log") }

// Start runs the engine, with the data and on the port it had before, and returns when it has answered a request.
// It is an error to start one that runs. It gives up after five minutes, or when ctx ends. The engine outlives ctx.
func (e *instance) Start(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.run != nil && e.run.alive() {
		return fmt.Errorf("start %s: it is running as process %d", e.name, e.run.pid())
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	log, err := os.OpenFile(e.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", e.name, err)
	}
	defer log.Close() // the child has its own descriptor
	run, err := e.launch(ctx, log)
	if err != nil {
		return fmt.Errorf("start %s: %w", e.name, err)
	}
	if err := e.awaitHealthy(ctx, run); err != nil {
		return errors.Join(fmt.Errorf("start %s on %s: %w; its log %s ends:\n%s", e.name, e.Addr(), err, e.LogPath(), e.LogTail()),
			run.kill())
	}
	e.run = run
	return nil
}

func (e *instance) launch(ctx context.Context, log *os.File) (*child, error) {
	for {
		cmd, err := e.command()
		if err != nil {
			return nil, err
		}
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(cmd.Environ(), e.env...)
		run, err := spawn(cmd)
		for _, f := range cmd.ExtraFiles {
			f.Close()
		}
		// A binary that was written a moment ago is busy while any process forked meanwhile still holds the
		// descriptor it was written through, until that one's exec.
		if errors.Is(err, syscall.ETXTBSY) && ctx.Err() == nil {
			continue
		}
		return run, err
	}
}

func (e *instance) awaitHealthy(ctx context.Context, run *child) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		probeCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := e.probe(probeCtx)
		cancel()
		if !run.alive() { // the answer may have come from another process on that port
			return fmt.Errorf("the process ended: %w", exitError(run.err))
		}
		if err == nil {
			return nil
		}
		select {
		case <-run.exited:
			return fmt.Errorf("the process ended: %w", exitError(run.err))
		case <-ctx.Done():
			return fmt.Errorf("%w (last answer: %w)", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// Ping sends the engine one real request.
func (e *instance) Ping(ctx context.Context) error {
	if err := e.probe(ctx); err != nil {
		return fmt.Errorf("ping %s on %s: %w", e.name, e.Addr(), err)
	}
	return nil
}

// Kill ends the engine with SIGKILL, as a crash would, and returns when its processes are gone. Killing one that does
// not run is no error.
func (e *instance) Kill() error {
	return e.end(func(run *child) error { return run.kill() })
}

// Stop ends the engine cleanly, and kills it when that takes longer than a minute, which is then the error. Stopping one
// that does not run is no error.
func (e *instance) Stop() error {
	return e.end(func(run *child) error { return run.stop(e.stopSig, stopLimit) })
}

func (e *instance) end(by func(*child) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.run == nil || !e.run.alive() {
		e.run = nil
		return nil
	}
	err := by(e.run)
	if !e.run.alive() {
		e.run = nil
	}
	if err != nil {
		return fmt.Errorf("end %s: %w", e.name, err)
	}
	return nil
}

// Freeze stops the engine's processes where they are (SIGSTOP): connections stay open and nothing is answered.
func (e *instance) Freeze() error {
	return e.running(func(run *child) error { _, err := run.freeze(); return err })
}

// Thaw lets a frozen engine go on (SIGCONT).
func (e *instance) Thaw() error { return e.running((*child).thaw) }

func (e *instance) running(do func(*child) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.run == nil || !e.run.alive() {
		return fmt.Errorf("%s: %w", e.name, ErrNotRunning)
	}
	if err := do(e.run); err != nil {
		return fmt.Errorf("%s: %w", e.name, err)
	}
	return nil
}

// Pid is the process id of the current run, or 0.
func (e *instance) Pid() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.run == nil || !e.run.alive() {
		return 0
	}
	return e.run.pid()
}

// Exited returns a channel that is closed when the current run's process has ended, for whatever reason. For an engine
// that does not run it is closed already.
func (e *instance) Exited() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.run == nil {
		c := make(chan struct{})
		close(c)
		return c
	}
	return e.run.exited
}

// LogTail returns the last lines of the engine's log, for a person.
func (e *instance) LogTail() string {
	const lines, width = 15, 300
	b, err := os.ReadFile(e.LogPath())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	for i, l := range all {
		if len(l) > width {
			l = l[:width] + "..."
		}
		all[i] = "  | " + l
	}
	return strings.Join(all, "\n")
}

// open makes the engine's directory and reserves its port.
func open(name string, o Options) (*instance, error) {
	if o.Dir == "" {
		return nil, fmt.Errorf("start %s: no data directory given", name)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	// Not every engine notices that another one writes to the same files.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("start %s: the data directory %s is in use by another one that runs: %w", name, dir, err)
	}
	p, err := reserve(o.Port)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &instance{name: name, dir: dir, lock: lock, port: p, env: o.Env, stopSig: syscall.SIGTERM}, nil
}

// begin starts the engine for the first time, and gives up its reservations when that fails.
func (e *instance) begin(ctx context.Context) error {
	err := e.Start(ctx)
	if err != nil {
		e.Release()
	}
	return err
}

// Release gives up the engine's port and data directory, for others. It can't be started after that.
func (e *instance) Release() {
	e.port.release()
	e.lock.Close()
}
