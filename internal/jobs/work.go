package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"tenantflow/internal/logs"
	"tenantflow/internal/retry"
	"tenantflow/sinks/postgres"
)

const (
	// retryFirst and retryMost are how long after a failure a slot is tried again, doubled each time.
	retryFirst = time.Minute
	retryMost  = time.Hour
	// leaving is how long what came of a slot may take to be stored when the process stops.
	leaving = 5 * time.Second
	// maxResult is how large a result may be: with it, an event fits into its topic.
	maxResult = 256 << 10
	// maxError is how much of an error is kept.
	maxError = 1000
)

// errLost ends work whose slot may be another process's.
var errLost = errors.New("the slot was lost: this process gave no sign for too long")

const unkept = "the slot of a job could not be kept"

// take begins the work of a job's next slot, unless this process is at work on the job.
func (s *Schedule) take(ctx context.Context, job *Job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.working[job.Name] {
		return nil
	}
	attempt, err := s.cfg.Store.TakeSlot(ctx, job.Name, s.cfg.Owner, s.cfg.Lease)
	if err != nil || attempt == nil {
		return err
	}
	s.working[job.Name] = true
	s.works.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.working, job.Name)
			s.mu.Unlock()
			notify(s.changed)
			notify(s.wake)
		}()
		s.work(ctx, job, *attempt)
	})
	return nil
}

// work does the work of a slot, and stores what came of it.
func (s *Schedule) work(ctx context.Context, job *Job, a postgres.JobAttempt) {
	began := time.Now()
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		s.keep(running, a, stop)
	}()
	defer func() {
		stop(nil)
		<-kept
	}()
	result, err := s.call(running, job, a)
	var text json.RawMessage
	if err == nil {
		text, err = encode(result)
	}
	outcome, err := s.end(ctx, running, a, text, err)
	took := time.Since(began)
	s.metrics.ran(job.Name, outcome, took)
	attrs := []slog.Attr{slog.String("name", job.Name), slog.Time("slot", a.At), slog.Int("attempt", a.Number), slog.Duration("took", took), slog.String("outcome", string(outcome))}
	level := slog.LevelInfo
	if err != nil && outcome != stopped && outcome != postponed {
		level = slog.LevelWarn
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	s.log.LogAttrs(ctx, level, "a slot of a job ended", attrs...)
}

// An outcome is what became of an attempt.
type outcome string

const (
	done      outcome = "done"
	failed    outcome = "failed"    // it is tried again
	postponed outcome = "postponed" // it can't be done yet
	stopped   outcome = "stopped"   // the process ends, and another one goes on
	lost      outcome = "lost"      // another process may have the slot
)

// outcomes lists them.
func outcomes() []outcome { return []outcome{done, failed, postponed, stopped, lost} }

// end stores what came of an attempt: its result, or why it failed. It tries for as long as the slot is kept, or a moment longer if the process is
// stopping. What can't be stored is done again.
func (s *Schedule) end(ctx, running context.Context, a postgres.JobAttempt, result json.RawMessage, failure error) (outcome, error) {
	if cause := context.Cause(running); failure != nil && ctx.Err() == nil && cause != nil {
		return lost, errors.Join(failure, cause)
	}
	ending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(running, func() { time.AfterFunc(leaving, cancel) })()
	is, ours := done, false
	var notYet *NotYetError
	err := retry.Do(ending, func() (err error) {
		switch {
		case failure == nil:
			ours, err = s.cfg.Store.EndSlot(ending, a, result)
		case ctx.Err() != nil:
			is, ours, err = stopped, true, s.cfg.Store.ReleaseSlot(ending, a)
		case errors.As(failure, &notYet):
			is = postponed
			ours, err = s.cfg.Store.PostponeSlot(ending, a, words(notYet), notYet.Until)
		default:
			is = failed
			ours, err = s.cfg.Store.RetrySlot(ending, a, words(failure), retryAfter(a.Number))
		}
		return err
	}, func(err error) error {
		if failure == nil && postgres.Classify(err) == postgres.Fatal {
			failure = fmt.Errorf("store the result: %w", err) // the table does not take it, and would not the next time
			return nil
		}
		s.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: unstored, Of: a.Job, Err: err})
		return nil
	})
	switch {
	case err != nil:
		return lost, errors.Join(failure, err)
	case !ours:
		return lost, errors.Join(failure, errLost)
	}
	s.troubles.Over(ctx, unstored, a.Job)
	return is, failure
}

const unstored = "what came of a slot of a job could not be stored"

// call runs a job. A fault in it is its failure, and not the end of what else the process does.
func (s *Schedule) call(ctx context.Context, job *Job, a postgres.JobAttempt) (result any, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s.log.LogAttrs(ctx, slog.LevelError, "a job panicked", slog.String("name", job.Name), slog.Any("fault", fault), slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("the job panicked: %v", fault)
		}
	}()
	if result, err = job.Run(ctx, a.At); err != nil {
		return nil, fmt.Errorf("run job %s for slot %s: %w", job.Name, a.At.Format(time.RFC3339), err)
	}
	return result, nil
}

// keep keeps a slot while the work lasts, and ends the work when another process may have the slot.
func (s *Schedule) keep(ctx context.Context, a postgres.JobAttempt, stop context.CancelCauseFunc) {
	tick := time.NewTicker(s.cfg.Lease / 6)
	defer tick.Stop()
	sign := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked := time.Now()
		ours, err := s.cfg.Store.KeepSlot(ctx, a, s.cfg.Lease)
		switch {
		case err == nil && ours:
			sign = asked
			s.troubles.Over(ctx, unkept, a.Job)
		case err == nil || time.Since(sign) > s.cfg.Lease:
			stop(errLost)
			return
		default:
			s.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: unkept, Of: a.Job, Err: err})
		}
	}
}

// encode writes a result as a JSON object.
func encode(result any) (json.RawMessage, error) {
	if result == nil {
		return json.RawMessage("{}"), nil
	}
	text, err := json.Marshal(result)
	switch {
	case err != nil:
		return nil, fmt.Errorf("write the result: %w", err)
	case string(text) == "null":
		return json.RawMessage("{}"), nil
	case text[0] != '{':
		return nil, fmt.Errorf("the result is no JSON object: %.100s", text)
	case len(text) > maxResult:
		return json.Marshal(map[string]any{"left_out": fmt.Sprintf("the result has %d bytes, and %d are kept", len(text), maxResult)})
	}
	return text, nil
}

// words are those of an error that are kept.
func words(err error) string {
	text := err.Error()
	if len(text) > maxError {
		text = text[:maxError] + "..."
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}

// retryAfter is how long after an attempt the next one is made.
func retryAfter(attempt int) time.Duration {
	wait := retryFirst
	for range attempt - 1 {
		if wait *= 2; wait >= retryMost {
			return retryMost
		}
	}
	return wait
}
