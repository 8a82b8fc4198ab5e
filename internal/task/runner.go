package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/logs"
	"tenantflow/internal/retry"
)

// A Kind does the tasks of one kind.
type Kind interface {
	// Open gets ready to work on a task that was claimed: it reads the spec and opens what the work needs. Errors are those
	// of [Work].
	Open(ctx context.Context, l *Lease) (Work, error)
}

// A Work is the work on one task by one owner. Its methods are called one after the other, in one goroutine. What a
// *FatalError says fails the task; other errors count as transient, and the call is repeated after a while, for as long as
// the lease lasts.
type Work interface {
	// Decide reads the records behind the task's position and decides what becomes of them, without publishing anything.
	// nil: nothing is left.
	Decide(ctx context.Context) (*Chunk, error)

	// Publish carries a decision out. It may be called again for a chunk that was published before, in whole or in part, by
	// this process or another one. What it returns, of the call that is the last, is added to the counts of the chunk; their sum does
	// not change by it. Its context ends when the task is asked to stop and does not come to the end of the chunk soon.
	Publish(ctx context.Context, c *Chunk) (Counts, error)

	// Progress is how much of the work lies behind the position, in a measure of the kind's own, and how much there is in all;
	// negative: not known.
	Progress() (done, total int64)

	// Close closes what Open has opened.
	Close()
}

// An Accounting is a Work that changes more in Postgres than its task.
type Accounting interface {
	// Account changes what belongs to a chunk, in the transaction that moves position and counts. It may be called again for a chunk
	// whose transaction has committed, and must then change nothing.
	Account(ctx context.Context, tx pgx.Tx, c *Chunk) error
}

// A Step is a border between two steps of a task. A process may die at any of them.
type Step string

// The steps in their order.
const (
	StepClaimed   Step = "claimed"
	StepDecided   Step = "decided"   // the chunk is decided, in memory only
	StepProposed  Step = "proposed"  // the decision is stored
	StepPublished Step = "published" // the chunk is published, and that is not noted
	StepAdvanced  Step = "advanced"  // position and counts have moved
	StepFinished  Step = "finished"  // the state is final
)

// A Progress is how far a task is.
type Progress struct {
	Task    Task   // a copy
	Done    int64  // see [Work.Progress]
	Total   int64  // negative: not known
	Waiting string // what it waits for; empty: nothing
}

// RunnerConfig is what a Runner needs.
type RunnerConfig struct {
	Kinds map[string]Kind // by the kind of a task

	// Poll is how often Serve looks for a task. Default: 2s.
	Poll time.Duration

	// Linger is how long a chunk may still take after the task was asked to stop. Default: 5s.
	Linger time.Duration

	// Progress, if set, is called after each chunk and each change of what the task waits for, by one goroutine at a time.
	Progress func(Progress)

	// OnStep, if set, is called at each border between steps.
	OnStep func(Step)

	Logger *slog.Logger
}

// A Runner works on tasks.
type Runner struct {
	store    *Store
	cfg      RunnerConfig
	log      *slog.Logger
	troubles *logs.Troubles
}

// NewRunner makes a Runner.
func NewRunner(store *Store, cfg RunnerConfig) *Runner {
	if cfg.Poll == 0 {
		cfg.Poll = 2 * time.Second
	}
	if cfg.Linger == 0 {
		cfg.Linger = 5 * time.Second
	}
	if cfg.Progress == nil {
		cfg.Progress = func(Progress) {}
	}
	if cfg.OnStep == nil {
		cfg.OnStep = func(Step) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Runner{store: store, cfg: cfg, log: cfg.Logger, troubles: logs.NewTroubles(cfg.Logger)}
}

// Run works on a task until it has ended, and returns it as it is then. While another process works on it, Run waits for that,
// reports its progress, and takes over if it dies. When ctx ends, the task is stopped; what was published stays.
//
// The error is about the runner: a task that has failed comes back without one.
func (r *Runner) Run(ctx context.Context, id string) (*Task, error) {
	for {
		lease, err := r.store.Claim(ctx, id)
		if err == nil {
			err = r.work(ctx, lease, true)
		}
		switch {
		case err == nil:
			r.troubles.Over(ctx, waitingFor, "")
			return lease.Task, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the task %s goes on in the part jobs of the service: %w", id, context.Cause(ctx))
		case errors.Is(err, ErrBusy), errors.Is(err, ErrLost):
		case fatal(err):
			return nil, err
		default:
			r.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: waitingFor, Err: err})
		}
		t, err := r.store.Show(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, err
		case err == nil && !t.State.Active():
			return t, nil
		case err == nil:
			r.troubles.Over(ctx, waitingFor, "")
			r.cfg.Progress(Progress{Task: *t, Total: -1, Waiting: "another process works on it: " + t.Owner})
		}
		_ = retry.Pause(ctx, time.Second)
	}
}

// Serve works on every task that no living process works on, one after the other, until ctx ends. Then it gives the task
// that it works on back, for another process. Errors of a task are in its row and in the log.
func (r *Runner) Serve(ctx context.Context) {
	var kinds []string
	for kind := range r.cfg.Kinds {
		kinds = append(kinds, kind)
	}
	for ctx.Err() == nil {
		lease, err := r.store.ClaimNext(ctx, kinds)
		if err == nil {
			log := r.log.With(slog.String("task", lease.Task.ID), slog.String("kind", lease.Task.Kind), slog.String("topic", lease.Task.Topic))
			log.InfoContext(ctx, "working on a task")
			if err = r.work(ctx, lease, false); err == nil {
				r.troubles.Over(ctx, cantGoOn, "")
				log.InfoContext(ctx, "the task has ended", slog.String("state", string(lease.Task.State)), slog.Any("counts", lease.Task.Counts),
					slog.String("message", lease.Task.Message))
				continue
			}
		}
		switch {
		case errors.Is(err, ErrBusy):
			r.troubles.Over(ctx, cantGoOn, "")
		case err != nil && ctx.Err() == nil:
			r.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: cantGoOn, Err: err})
		}
		_ = retry.Pause(ctx, r.cfg.Poll)
	}
}

// What the log says of what the runner tries again.
const (
	waitingFor = "waiting for Postgres"
	cantGoOn   = "a task can't go on here"
)

// errStop ends the work on a task that was asked to stop.
var errStop = errors.New("asked to stop")

// A shift is the work of this process on a claimed task.
type shift struct {
	*Runner
	lease  *Lease
	work   Work
	cancel context.CancelCauseFunc
	ended  <-chan struct{} // closed at the end of a run that stops its task with it; nil: it gives the task back

	mu       sync.Mutex
	waiting  string
	stopping bool
}

// work works on a claimed task until it has ended, which the lease's task then says. The error is ErrLost, what ended ctx, or
// that Postgres does not answer. stops: the end of ctx stops the task; otherwise it is given back.
func (r *Runner) work(ctx context.Context, lease *Lease, stops bool) error {
	outlive := context.WithoutCancel(ctx)
	working, cancel := context.WithCancelCause(outlive)
	defer cancel(nil)
	s := &shift{Runner: r, lease: lease, cancel: cancel, stopping: lease.Task.State == Stopping}
	if stops {
		s.ended = ctx.Done()
	}
	lease.noted = s.wait
	var beside sync.WaitGroup
	beside.Go(func() { s.keep(working) })
	beside.Go(func() { s.heed(ctx, working, stops) })
	r.cfg.OnStep(StepClaimed)
	err := s.run(working)
	if err != nil && working.Err() != nil {
		err = context.Cause(working)
	}
	cancel(nil)
	beside.Wait()
	if s.work != nil {
		s.work.Close()
	}
	switch {
	case err == nil:
		err = s.finish(outlive, Done, "")
	case errors.Is(err, errStop):
		err = s.finish(outlive, Stopped, "")
	case errors.Is(err, ErrLost), errors.Is(err, errRelease), errors.Is(err, errUnrenewed):
		if rerr := lease.Release(outlive); rerr != nil {
			r.log.WarnContext(ctx, "the lease of a task runs out", slog.Any("error", rerr))
		}
	default:
		err = s.finish(outlive, Failed, err.Error())
	}
	if err == nil {
		r.cfg.OnStep(StepFinished)
		s.report()
	}
	return err
}

// errRelease gives the task back, errUnrenewed ends the work because the lease could not be renewed in time.
var (
	errRelease   = errors.New("the task is given back: this process is stopping")
	errUnrenewed = errors.New("the lease of the task could not be renewed in time")
)

// finish writes the final state, trying again for as long as a lease lasts.
func (s *shift) finish(ctx context.Context, state State, message string) error {
	ctx, cancel := context.WithTimeout(ctx, s.store.lease)
	defer cancel()
	return s.retry(ctx, func() error { return s.lease.Finish(ctx, state, message) })
}

// keep renews the lease, and ends the work when it can't be renewed or the task is asked to stop.
func (s *shift) keep(ctx context.Context) {
	renewed := time.Now()
	for retry.Pause(ctx, min(s.store.lease/4, 2*time.Second)) == nil {
		began := time.Now()
		state, err := s.lease.Renew(ctx, s.waits())
		switch {
		case err == nil:
			renewed = began
			if state == Stopping {
				s.stop(ctx)
			}
		case errors.Is(err, ErrLost):
			s.cancel(ErrLost)
		case time.Since(renewed) > s.store.lease*3/4:
			s.cancel(errors.Join(errUnrenewed, err))
		}
	}
}

// heed ends the work when the process is asked to stop.
func (s *shift) heed(ctx, working context.Context, stops bool) {
	select {
	case <-working.Done():
	case <-ctx.Done():
		if !stops {
			s.cancel(errRelease)
			return
		}
		s.stop(working)
	}
}

// stop lets the chunk under way come to its end, if that is soon.
func (s *shift) stop(ctx context.Context) {
	s.mu.Lock()
	before := s.stopping
	s.stopping = true
	s.mu.Unlock()
	if before {
		return
	}
	linger := s.cfg.Linger
	time.AfterFunc(linger, func() {
		if ctx.Err() == nil {
			s.cancel(errStop)
		}
	})
}

// asked reports whether the task was asked to stop, also where heed has not had its turn yet.
func (s *shift) asked() bool {
	select {
	case <-s.ended:
		return true
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

func (s *shift) waits() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// wait notes what the task waits for; empty: nothing.
func (s *shift) wait(what string) {
	s.mu.Lock()
	changed := s.waiting != what
	s.waiting = what
	s.mu.Unlock()
	if changed {
		s.report()
	}
}

func (s *shift) report() {
	p := Progress{Task: *s.lease.Task, Total: -1, Waiting: s.waits()}
	if s.work != nil {
		p.Done, p.Total = s.work.Progress()
	}
	s.cfg.Progress(p)
}

// run opens the work and does chunk after chunk.
func (s *shift) run(ctx context.Context) error {
	if s.asked() {
		return errStop
	}
	kind, ok := s.cfg.Kinds[s.lease.Task.Kind]
	if !ok {
		return Fatalf("this version of the service knows no tasks of the kind %q", s.lease.Task.Kind)
	}
	if err := s.retry(ctx, func() (err error) {
		s.work, err = kind.Open(ctx, s.lease)
		return err
	}); err != nil {
		return err
	}
	s.report()
	for {
		c := s.lease.Task.Pending // of an earlier owner
		if c == nil {
			if s.asked() {
				return errStop
			}
			if err := s.retry(ctx, func() (err error) {
				c, err = s.work.Decide(ctx)
				return err
			}); err != nil {
				return err
			}
			if c == nil {
				return s.forget(ctx)
			}
			s.cfg.OnStep(StepDecided)
			if c.Publish != nil {
				if err := s.retry(ctx, func() error { return s.lease.Propose(ctx, c) }); err != nil {
					return err
				}
				s.cfg.OnStep(StepProposed)
			}
		}
		if err := s.carryOut(ctx, c); err != nil {
			return err
		}
	}
}

// forget deletes what is kept of a task only until everything is decided.
func (s *shift) forget(ctx context.Context) error {
	for more := true; more; {
		if s.asked() {
			return errStop
		}
		if err := s.retry(ctx, func() (err error) {
			more, err = s.lease.Forget(ctx)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// carryOut publishes a chunk and accounts for it.
func (s *shift) carryOut(ctx context.Context, c *Chunk) error {
	done := *c
	if c.Publish != nil {
		if err := s.retry(ctx, func() error {
			changed, err := s.work.Publish(ctx, c)
			if err == nil {
				done.Counts = c.Counts.Plus(changed)
			}
			return err
		}); err != nil {
			return err
		}
		s.cfg.OnStep(StepPublished)
	}
	if err := s.retry(ctx, func() error {
		_, err := s.lease.advance(ctx, &done, s.account(&done))
		return err
	}); err != nil {
		return err
	}
	s.cfg.OnStep(StepAdvanced)
	s.report()
	return nil
}

// account returns what the work changes with a chunk; nil: nothing.
func (s *shift) account(c *Chunk) func(context.Context, pgx.Tx) error {
	work, ok := s.work.(Accounting)
	if !ok {
		return nil
	}
	return func(ctx context.Context, tx pgx.Tx) error { return work.Account(ctx, tx, c) }
}

// retry does something again until it works, can't work, or ctx ends.
func (s *shift) retry(ctx context.Context, do func() error) error {
	err := retry.Do(ctx, do, func(err error) error {
		if ctx.Err() != nil || errors.Is(err, ErrLost) || fatal(err) {
			return err
		}
		s.wait(err.Error())
		return nil
	})
	if err == nil {
		s.wait("")
	}
	return err
}
