package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/logs"
	"tenantflow/sinks/postgres"
)

// A Store keeps the schedule: *postgres.Store.
type Store interface {
	RegisterJobs(ctx context.Context, every map[string]string) error
	WatchJobs(ctx context.Context, jobs []string, lease time.Duration) ([]postgres.JobWatch, error)
	PlanJob(ctx context.Context, job string, decide func(postgres.JobState) postgres.JobPlan) (postgres.JobPlan, int64, error)
	JobEvents(ctx context.Context, jobs []string) ([]postgres.JobEvent, error)
	MarkJobEvents(ctx context.Context, published []postgres.JobEvent) error
	TakeSlot(ctx context.Context, job, owner string, lease time.Duration) (*postgres.JobAttempt, error)
	KeepSlot(ctx context.Context, a postgres.JobAttempt, lease time.Duration) (bool, error)
	EndSlot(ctx context.Context, a postgres.JobAttempt, result json.RawMessage) (bool, error)
	RetrySlot(ctx context.Context, a postgres.JobAttempt, why string, after time.Duration) (bool, error)
	PostponeSlot(ctx context.Context, a postgres.JobAttempt, why string, until time.Time) (bool, error)
	ReleaseSlot(ctx context.Context, a postgres.JobAttempt) error
	Jobs(ctx context.Context) ([]postgres.JobInfo, error)
}

// Config is what a Schedule needs.
type Config struct {
	Jobs  []Job
	Store Store

	// Publish publishes events, and returns when they are durable.
	Publish     func(context.Context, []kafka.Result) error
	TopicPrefix string

	// Owner names this process in the table.
	Owner string

	// Lease is how long a process that works on a slot is taken to live without a sign. Default: 2m.
	Lease time.Duration

	// Poll is how often it looks what is to be done. Default: 1s.
	Poll time.Duration

	// Metrics may be nil.
	Metrics *Metrics

	Logger *slog.Logger
}

const (
	defaultLease = 2 * time.Minute
	defaultPoll  = time.Second
	// publishWithin is how long events have to be published, before they are looked for again.
	publishWithin = 10 * time.Second
	// reportEvery is how often the metrics follow the table.
	reportEvery = 10 * time.Second
)

// A Schedule plans slots, publishes their events and does their work, beside those of other processes.
type Schedule struct {
	cfg      Config
	names    []string
	jobs     map[string]*Job
	log      *slog.Logger
	troubles *logs.Troubles
	metrics  *Metrics

	changed chan struct{} // events are to be published
	wake    chan struct{} // a slot has ended, or can be taken

	mu      sync.Mutex
	working map[string]bool // jobs that this process works on
	works   sync.WaitGroup

	registered bool
	reported   time.Time
}

// New makes a Schedule. The error means that a job is not described well.
func New(cfg Config) (*Schedule, error) {
	if cfg.Lease == 0 {
		cfg.Lease = defaultLease
	}
	if cfg.Poll == 0 {
		cfg.Poll = defaultPoll
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Schedule{cfg: cfg, log: cfg.Logger, troubles: logs.NewTroubles(cfg.Logger), metrics: cfg.Metrics,
		jobs: map[string]*Job{}, working: map[string]bool{}, changed: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	for i := range cfg.Jobs {
		job := &cfg.Jobs[i]
		if err := job.check(); err != nil {
			return nil, err
		}
		s.names, s.jobs[job.Name] = append(s.names, job.Name), job
	}
	if s.metrics == nil {
		s.metrics = NewMetrics(nil, s.names...)
	}
	return s, nil
}

// What the log says of what is tried again.
const (
	lookFailed    = "looking at the schedule failed"
	publishFailed = "events of the schedule are not published"
)

// Run works until ctx ends, waits until the jobs under way have stopped, and returns nil. What fails is logged and tried again. Only where Postgres
// refuses the login, or every look at the schedule until a person mends that, it returns that.
func (s *Schedule) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.works.Wait()
	defer cancel()
	s.works.Go(func() { s.publishEvents(ctx) })
	tick := time.NewTicker(s.cfg.Poll)
	defer tick.Stop()
	for {
		var still *blockedError
		switch err := s.look(ctx); {
		case ctx.Err() != nil:
		case err == nil:
			s.troubles.Over(ctx, lookFailed, "")
		case postgres.Refused(err), errors.As(err, &still):
			return fmt.Errorf("look at the schedule: %w", err)
		default:
			s.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: lookFailed, Err: err})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.wake:
		}
	}
}

// A blockedError is of a look at the schedule that a person has to mend: a missing right, or a database that was not migrated.
type blockedError struct{ error }

func (e *blockedError) Unwrap() error { return e.error }

func blocked(err error) error {
	if postgres.Classify(err) == postgres.Fatal {
		return &blockedError{err}
	}
	return err
}

// look plans what has come, and takes what is to be done. One job's trouble is not another's.
func (s *Schedule) look(ctx context.Context) error {
	if !s.registered {
		every := map[string]string{}
		for name, job := range s.jobs {
			every[name] = string(job.Every)
		}
		if err := s.cfg.Store.RegisterJobs(ctx, every); err != nil {
			return blocked(err)
		}
		s.registered = true
	}
	all, err := s.cfg.Store.WatchJobs(ctx, s.names, s.cfg.Lease)
	if err != nil {
		return blocked(err)
	}
	s.registered = len(all) == len(s.names) // rows may go: the database is that of an older dump
	var troubles []error
	for _, w := range all {
		job := s.jobs[w.Job]
		if job.Every.Floor(w.Now).After(w.PlannedTo) || job.ahead(w.PlannedTo, w.Now) {
			if err := s.plan(ctx, job); err != nil {
				troubles = append(troubles, err)
			}
		}
		if w.Unpublished {
			notify(s.changed)
		}
		if w.Ready {
			if err := s.take(ctx, job); err != nil {
				troubles = append(troubles, err)
			}
		}
	}
	if time.Since(s.reported) >= reportEvery {
		if err := s.report(ctx); err != nil {
			troubles = append(troubles, err)
		}
	}
	return errors.Join(troubles...)
}

// plan decides about the slots of a job that have come.
func (s *Schedule) plan(ctx context.Context, job *Job) error {
	plan, skipped, err := s.cfg.Store.PlanJob(ctx, job.Name, job.plan)
	if err != nil || plan.To.IsZero() {
		return err
	}
	if plan.Back {
		s.log.LogAttrs(ctx, slog.LevelWarn, "a job was planned far ahead of the clock, and goes back: the clock of Postgres was wrong, or is now",
			slog.String("name", job.Name), slog.Time("slot", plan.To))
		notify(s.wake)
		return nil
	}
	s.metrics.planned(job.Name, plan.Missed, skipped)
	if plan.Missed > 0 || skipped > 0 {
		s.log.LogAttrs(ctx, slog.LevelWarn, "slots of a job are left out: no process planned in time (missed), or the one before was at work (skipped)",
			slog.String("name", job.Name), slog.Time("slot", plan.To), slog.Int64("missed", plan.Missed), slog.Int64("skipped", skipped))
	}
	notify(s.changed)
	return nil
}

// publishEvents publishes events that wait, each time it is woken, until ctx ends.
func (s *Schedule) publishEvents(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		switch err := s.publish(ctx); {
		case ctx.Err() != nil:
		case err != nil:
			s.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: publishFailed, Err: err})
		default:
			s.troubles.Over(ctx, publishFailed, "")
		}
	}
}

// publish publishes what this process can get hold of: what is due, and then what is done one by one, so that a result that its topic does not take
// holds up no work. A crash before it is noted publishes it again, under the same ids.
func (s *Schedule) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publishWithin)
	defer cancel()
	all, err := s.cfg.Store.JobEvents(ctx, s.names)
	if err != nil || len(all) == 0 {
		return err
	}
	var due []postgres.JobEvent
	var parts [][]postgres.JobEvent
	for i := range all {
		if all[i].Done {
			parts = append(parts, all[i:i+1])
		} else {
			due = append(due, all[i])
		}
	}
	if len(due) > 0 {
		parts = append([][]postgres.JobEvent{due}, parts...)
	}
	var troubles []error
	for _, part := range parts {
		err := s.cfg.Publish(ctx, Results(s.cfg.TopicPrefix, part))
		if err == nil {
			err = s.cfg.Store.MarkJobEvents(ctx, part)
		}
		troubles = append(troubles, err)
	}
	return errors.Join(troubles...)
}

// Results are events of the schedule as they are published: the key is the job.
func Results(topicPrefix string, all []postgres.JobEvent) []kafka.Result {
	results := make([]kafka.Result, len(all))
	for i, e := range all {
		results[i] = kafka.Result{Topic: topicPrefix + events.TopicMaintenance, Key: e.Job, Event: e.Event}
	}
	return results
}

// report has the metrics follow the table.
func (s *Schedule) report(ctx context.Context) error {
	all, err := s.cfg.Store.Jobs(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		if s.jobs[all[i].Job] != nil {
			s.metrics.show(&all[i], s.jobs[all[i].Job].Every)
		}
	}
	s.reported = time.Now()
	return nil
}

// notify wakes a loop that may be awake already.
func notify(loop chan struct{}) {
	select {
	case loop <- struct{}{}:
	default:
	}
}

// Wake has the schedule look at once: the event of a slot was read.
func (s *Schedule) Wake() { notify(s.wake) }
