package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed slot_begin.sql
	slotBeginSQL string
	//go:embed slot_last.sql
	slotLastSQL string
)

// slotsKept is how long a slot is kept.
const slotsKept = 90 * 24 * time.Hour

// A Slot is one time a job was due, and done.
type Slot struct {
	At                time.Time // when it was due
	Started, Finished time.Time // by Postgres' clock
	Result            json.RawMessage
}

// BeginSlot takes a slot of a job, for as long as lease. It returns false if another process was faster, or works on another slot of
// the job: a job has one process at a time.
func (s *Store) BeginSlot(ctx context.Context, job string, slot time.Time, lease time.Duration) (taken bool, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	const doing = "take a slot of a job"
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Two processes that take different slots at the same time would not see each other's. The table is small, and locked shortly.
		b := &pgx.Batch{}
		b.Queue("LOCK TABLE public.job_slots IN SHARE ROW EXCLUSIVE MODE")
		b.Queue(`UPDATE public.job_slots SET state = 'failed', finished_at = greatest(clock_timestamp(), started_at) WHERE job = $1 AND state = 'running' AND lease_until <= clock_timestamp()`, job)
		b.Queue("DELETE FROM public.job_slots WHERE job = $1 AND slot < clock_timestamp() - $2::interval", job, slotsKept)
		b.Queue(slotBeginSQL, job, slot, lease).QueryRow(func(row pgx.Row) error {
			var one int
			err := row.Scan(&one)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			taken = err == nil
			return err
		})
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return false, s.explain(doing, err)
	}
	return taken, nil
}

// RenewSlot moves the lease of a slot on. It returns false if the slot is not the caller's any more.
func (s *Store) RenewSlot(ctx context.Context, job string, slot time.Time, lease time.Duration) (bool, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	tag, err := s.pool.Exec(ctx, `UPDATE public.job_slots SET lease_until = clock_timestamp() + $3::interval
		WHERE job = $1 AND slot = $2 AND state = 'running'`, job, slot, lease)
	if err != nil {
		return false, s.explain("keep a slot of a job", err)
	}
	return tag.RowsAffected() == 1, nil
}

// FinishSlot says what came of a slot: a JSON object, and whether the job was done.
func (s *Store) FinishSlot(ctx context.Context, job string, slot time.Time, done bool, result json.RawMessage) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	state := "failed"
	if done {
		state = "done"
	}
	_, err := s.pool.Exec(ctx, `UPDATE public.job_slots SET state = $3, result = $4, finished_at = greatest(clock_timestamp(), started_at)
		WHERE job = $1 AND slot = $2 AND state = 'running'`, job, slot, state, result)
	if err != nil {
		return s.explain("finish a slot of a job", err)
	}
	return nil
}

// LastSlot returns the last slot of a job that was done; nil: none was.
func (s *Store) LastSlot(ctx context.Context, job string) (*Slot, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var one Slot
	err := s.pool.QueryRow(ctx, slotLastSQL, job).Scan(&one.At, &one.Started, &one.Finished, &one.Result)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, s.explain("read the last slot of a job", err)
	}
	return &one, nil
}
