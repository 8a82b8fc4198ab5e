package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
)

var (
	//go:embed queries/job_outbox.sql
	jobOutboxSQL string
	//go:embed queries/job_announced.sql
	jobAnnouncedSQL string
	//go:embed queries/job_published.sql
	jobPublishedSQL string
	//go:embed queries/job_queue.sql
	jobQueueSQL string
)

const (
	// jobClaim is how long a process has to publish events, before another one does.
	jobClaim = 10 * time.Second
	// jobDueAgain is after how long a due event is published again that has had no effect.
	jobDueAgain = 10 * time.Minute
)

// A JobEvent is an event of the schedule that is to be published.
type JobEvent struct {
	events.Slot
	Done  bool // of what came of the slot; otherwise, that it is due
	Event *events.Envelope
}

// A jobOutboxRow is a row of job_outbox.sql.
type jobOutboxRow struct {
	Job        string
	Slot       time.Time
	State      string
	Result     json.RawMessage
	FinishedAt *time.Time
}

// JobEvents takes the events of some jobs that are to be published. Publish them at once, and call MarkJobEvents: another process publishes them
// after ten seconds.
func (s *Store) JobEvents(ctx context.Context, jobs []string) ([]JobEvent, error) {
	return collect(ctx, s, "look for events of the schedule", readJobEvent, jobOutboxSQL, jobs, jobClaim, jobLongestWait)
}

// readJobEvent makes the event of a slot.
func readJobEvent(row pgx.CollectableRow) (JobEvent, error) {
	r, err := pgx.RowToStructByName[jobOutboxRow](row)
	if err != nil {
		return JobEvent{}, err
	}
	e := JobEvent{Slot: events.Slot{Job: r.Job, At: r.Slot.UTC()}, Done: r.State == SlotDone}
	if !e.Done {
		e.Event, err = events.SlotDue(r.Job, r.Slot)
		return e, err
	}
	if r.FinishedAt == nil {
		return e, fmt.Errorf("slot %s of job %s is done, and has no end", e.At.Format(time.RFC3339), r.Job)
	}
	e.Event, err = events.SlotDone(r.Job, r.Slot, *r.FinishedAt, r.Result)
	return e, err
}

// MarkJobEvents notes that events are published. What is due is published again after ten minutes without effect.
func (s *Store) MarkJobEvents(ctx context.Context, published []JobEvent) error {
	var due, done jobSlots
	for _, e := range published {
		if e.Done {
			done.add(e.Slot)
		} else {
			due.add(e.Slot)
		}
	}
	if len(due.jobs) > 0 {
		if _, err := s.exec(ctx, "note what is published of the schedule", jobAnnouncedSQL, due.jobs, due.slots, jobDueAgain); err != nil {
			return err
		}
	}
	if len(done.jobs) > 0 {
		if _, err := s.exec(ctx, "note what is published of jobs", jobPublishedSQL, done.jobs, done.slots); err != nil {
			return err
		}
	}
	return nil
}

// jobSlots are slots as parameters of a statement.
type jobSlots struct {
	jobs  []string
	slots []time.Time
}

func (j *jobSlots) add(s events.Slot) {
	j.jobs, j.slots = append(j.jobs, s.Job), append(j.slots, s.At)
}

// QueueSlots has slots done whose due events were read from the log, of those that are still due, and returns these. The others have no effect: they
// are done, under way or too late, or no slot of the schedule.
func (s *Store) QueueSlots(ctx context.Context, all []events.Slot) ([]events.Slot, error) {
	var some jobSlots
	for _, one := range all {
		some.add(one)
	}
	return collect(ctx, s, "have slots of the schedule done", readJobSlot, jobQueueSQL, some.jobs, some.slots)
}

func readJobSlot(row pgx.CollectableRow) (slot events.Slot, err error) {
	err = row.Scan(&slot.Job, &slot.At)
	slot.At = slot.At.UTC()
	return slot, err
}
