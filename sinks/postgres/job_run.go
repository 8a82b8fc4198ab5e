package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
)

var (
	//go:embed queries/job_take.sql
	jobTakeSQL string
	//go:embed queries/job_renew.sql
	jobRenewSQL string
	//go:embed queries/job_finish.sql
	jobFinishSQL string
	//go:embed queries/job_retry.sql
	jobRetrySQL string
	//go:embed queries/job_postpone.sql
	jobPostponeSQL string
)

// A JobAttempt is a process's hold on a slot. Number grows with every attempt at it: what an older one says changes nothing.
type JobAttempt struct {
	events.Slot
	Number int
}

// TakeSlot takes the first slot of a job that is to be done, for as long as a lease. It returns nil if there is none, or another slot of the job is at
// work.
func (s *Store) TakeSlot(ctx context.Context, job, owner string, lease time.Duration) (taken *JobAttempt, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		locked, err := lockJob(ctx, tx, job)
		if err != nil || !locked {
			return err
		}
		one := JobAttempt{Slot: events.Slot{Job: job}}
		err = tx.QueryRow(ctx, jobTakeSQL, job, lease, owner, jobLongestWait).Scan(&one.At, &one.Number)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		one.At = one.At.UTC()
		taken = &one
		return err
	})
	if err != nil {
		return nil, s.explain("take a slot of job "+job, err)
	}
	return taken, nil
}

// KeepSlot moves the lease of an attempt on. It returns false if the slot is another process's by now.
func (s *Store) KeepSlot(ctx context.Context, a JobAttempt, lease time.Duration) (bool, error) {
	n, err := s.exec(ctx, "keep a slot of job "+a.Job, jobRenewSQL, a.Job, a.At, a.Number, lease)
	return n == 1, err
}

// EndSlot stores what came of a slot, a JSON object, and has its event published. It returns false if the slot is another process's by now.
func (s *Store) EndSlot(ctx context.Context, a JobAttempt, result json.RawMessage) (bool, error) {
	n, err := s.exec(ctx, "end a slot of job "+a.Job, jobFinishSQL, a.Job, a.At, a.Number, result)
	return n == 1, err
}

// RetrySlot gives an attempt up that has failed, for the reason why. The slot is tried again after a while. It returns false if the slot is another
// process's by now.
func (s *Store) RetrySlot(ctx context.Context, a JobAttempt, why string, after time.Duration) (bool, error) {
	n, err := s.exec(ctx, "give a slot of job "+a.Job+" up", jobRetrySQL, a.Job, a.At, a.Number, why, after)
	return n == 1, err
}

// PostponeSlot gives an attempt up whose work can't be done before a time, for the reason why. The slot is looked at again then, or after an hour. It returns
// false if the slot is another process's by now.
func (s *Store) PostponeSlot(ctx context.Context, a JobAttempt, why string, until time.Time) (bool, error) {
	n, err := s.exec(ctx, "put a slot of job "+a.Job+" off", jobPostponeSQL, a.Job, a.At, a.Number, why, until, time.Hour)
	return n == 1, err
}

// ReleaseSlot gives an attempt up that was stopped. Another process goes on at once.
func (s *Store) ReleaseSlot(ctx context.Context, a JobAttempt) error {
	_, err := s.exec(ctx, "give a slot of job "+a.Job+" back", jobRetrySQL, a.Job, a.At, a.Number, nil, time.Duration(0))
	return err
}
