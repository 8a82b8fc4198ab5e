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
	//go:embed queries/job_list.sql
	jobListSQL string
	//go:embed queries/job_slot.sql
	jobSlotSQL string
	//go:embed queries/job_ask.sql
	jobAskSQL string
)

// A JobInfo is a job of the schedule, with its last slot and what came of it.
type JobInfo struct {
	Job, Every           string
	FirstSeen, PlannedTo time.Time
	Missed, Skipped      int64 // slots, since it was first seen
	Now                  time.Time

	LastSlot              *time.Time // nil: there was none; the rest is about it
	State                 string
	StartedAt, FinishedAt *time.Time
	Attempts              int
	Error                 string
	Result                json.RawMessage

	DoneSlot, DoneAt *time.Time // the last one that was done, and when; nil: none was
	OpenSince        *time.Time // since when the oldest work could be done that is not at its end; nil: there is none
	Open             int64      // slots that are not at their end
}

// Jobs lists the jobs of the schedule by name.
func (s *Store) Jobs(ctx context.Context) ([]JobInfo, error) {
	return collect(ctx, s, "list the jobs of the schedule", pgx.RowToStructByName[JobInfo], jobListSQL)
}

// A JobSlot is a slot of the schedule.
type JobSlot struct {
	Slot                  time.Time
	State                 string
	StartedAt, FinishedAt *time.Time
	Attempts              int
	Owner, Error, AskedBy string
	Result                json.RawMessage
	PublishedAt           *time.Time
}

// JobSlot returns a slot; nil: it is not there.
func (s *Store) JobSlot(ctx context.Context, slot events.Slot) (*JobSlot, error) {
	found, err := collectOne(ctx, s, "look for a slot of job "+slot.Job, pgx.RowToStructByName[JobSlot], jobSlotSQL, slot.Job, slot.At)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, err
	}
	return &found, nil
}

// AskForSlot has a slot done that was missed, has failed or was skipped, because a person asked for it. Publish its due event and call MarkJobEvents. It returns
// false if the slot is done or under way.
func (s *Store) AskForSlot(ctx context.Context, slot events.Slot, by string) (bool, error) {
	asked, err := collect(ctx, s, "ask for a slot of job "+slot.Job, pgx.RowTo[time.Time], jobAskSQL, slot.Job, slot.At, by, jobClaim)
	return len(asked) == 1, err
}
