package postgres

import (
	"context"
	_ "embed"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed queries/job_register.sql
	jobRegisterSQL string
	//go:embed queries/job_watch.sql
	jobWatchSQL string
	//go:embed queries/job_heal.sql
	jobHealSQL string
	//go:embed queries/job_state.sql
	jobStateSQL string
	//go:embed queries/job_close.sql
	jobCloseSQL string
	//go:embed queries/job_plan.sql
	jobPlanSQL string
	//go:embed queries/job_planned.sql
	jobPlannedSQL string
	//go:embed queries/job_ahead.sql
	jobAheadSQL string
	//go:embed queries/job_forget.sql
	jobForgetSQL string
)

// States of a slot.
const (
	SlotDue     = "due"     // its event is to be in the log
	SlotQueued  = "queued"  // its event was read
	SlotRunning = "running" // a process is at work
	SlotDone    = "done"
	SlotFailed  = "failed"  // it was not done before it was too late
	SlotSkipped = "skipped" // the one before it was at work, or the next one came before it had begun
)

const (
	// JobSlotsKept is how long a slot of the schedule is kept: longer than any job looks back.
	JobSlotsKept = 800 * 24 * time.Hour
	// jobLongestWait is longer than anything in the schedule is put off. A time that lies further ahead is left over from a clock that was set back.
	jobLongestWait = 61 * time.Minute
)

// A JobWatch is what a process looks at again and again of a job.
type JobWatch struct {
	Job         string
	PlannedTo   time.Time // the last slot about which was decided
	Now         time.Time // by the clock of the schedule
	Ready       bool      // a slot can be taken
	Unpublished bool      // events are to be published
}

// A JobState is what is known of a job when its slots are planned.
type JobState struct {
	PlannedTo time.Time // the last slot about which was decided
	Now       time.Time // by the clock of the schedule
	Running   bool      // a slot is at work
}

// A JobPlan is what is decided about the slots of a job that have come.
type JobPlan struct {
	To      time.Time   // the last slot that has come; zero: none has, and nothing is changed
	Back    bool        // planning goes back to that: a clock was far ahead
	Due     []time.Time // those to be done
	Skipped []time.Time // those that are left out
	Missed  int64       // how many others there were
	Before  time.Time   // open slots before that are ended; zero: none is
}

// RegisterJobs makes jobs known, by their names, that recur every hour, day, week or month. A job that is new begins with its next slot.
func (s *Store) RegisterJobs(ctx context.Context, every map[string]string) error {
	names, units := make([]string, 0, len(every)), make([]string, 0, len(every))
	for name, unit := range every {
		names, units = append(names, name), append(units, unit)
	}
	_, err := s.exec(ctx, "register the jobs of the schedule", jobRegisterSQL, names, units)
	return err
}

// WatchJobs returns what is to be done for some jobs. A lease longer than two leases ends earlier: the clock was set back.
func (s *Store) WatchJobs(ctx context.Context, jobs []string, lease time.Duration) ([]JobWatch, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var found []JobWatch
	b := &pgx.Batch{}
	b.Queue(jobHealSQL, jobs, lease)
	b.Queue(jobWatchSQL, jobs, jobLongestWait).Query(func(rows pgx.Rows) (err error) {
		found, err = pgx.CollectRows(rows, pgx.RowToStructByName[JobWatch])
		return err
	})
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, s.explain("look at the schedule", err)
	}
	return found, nil
}

// errNothingPlanned ends a transaction that has nothing to change.
var errNothingPlanned = errors.New("nothing is to be planned")

// PlanJob decides about the slots of a job that have come since it was planned last, under the job's lock, and stores what was decided. It returns how
// many slots were skipped, those included that were open before. It does nothing while another process has the lock.
func (s *Store) PlanJob(ctx context.Context, job string, decide func(JobState) JobPlan) (plan JobPlan, skipped int64, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		locked, err := lockJob(ctx, tx, job)
		if err != nil {
			return err
		}
		if !locked {
			return errNothingPlanned
		}
		rows, _ := tx.Query(ctx, jobStateSQL, job) // its error comes with the rows
		state, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[JobState])
		if err != nil {
			return err
		}
		if plan = decide(state); plan.To.IsZero() {
			return errNothingPlanned
		}
		skipped, err = storePlan(ctx, tx, job, &plan)
		return err
	})
	switch {
	case errors.Is(err, errNothingPlanned):
		return JobPlan{}, 0, nil
	case err != nil:
		return JobPlan{}, 0, s.explain("plan the slots of job "+job, err)
	}
	return plan, skipped, nil
}

// lockJob locks the row of a job. It returns false while another process has it: that one does what is to be done.
func lockJob(ctx context.Context, tx pgx.Tx, job string) (bool, error) {
	var one int
	err := tx.QueryRow(ctx, "SELECT 1 FROM public.jobs WHERE job = $1 FOR UPDATE SKIP LOCKED", job).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// storePlan stores what was decided about a job, and returns how many slots that skips.
func storePlan(ctx context.Context, tx pgx.Tx, job string, plan *JobPlan) (skipped int64, err error) {
	if !plan.Before.IsZero() {
		rows, _ := tx.Query(ctx, jobCloseSQL, job, plan.Before) // its error comes with the rows
		closed, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return 0, err
		}
		for _, state := range closed {
			if state == SlotSkipped {
				skipped++
			}
		}
	}
	slots, states := append([]time.Time{}, plan.Due...), make([]string, 0, len(plan.Due)+len(plan.Skipped))
	for range plan.Due {
		states = append(states, SlotDue)
	}
	for _, at := range plan.Skipped {
		slots, states = append(slots, at), append(states, SlotSkipped)
	}
	skipped += int64(len(plan.Skipped))
	b := &pgx.Batch{}
	b.Queue(jobForgetSQL, job, JobSlotsKept) // by the plan of before
	b.Queue(jobPlanSQL, job, slots, states)
	b.Queue(jobPlannedSQL, job, plan.To, plan.Missed, skipped, plan.Back)
	if plan.Back {
		b.Queue(jobAheadSQL, job)
	}
	return skipped, tx.SendBatch(ctx, b).Close()
}
