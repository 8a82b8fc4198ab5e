package jobs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

// A Job is work that recurs.
type Job struct {
	// Name is one of [events.Jobs]: it is in the types of the job's events.
	Name string

	Every Every

	// Catchup says which slots are made up for that came while no process planned.
	Catchup Catchup

	// Run does the work of a slot. An error that wraps a [NotYetError] puts it off; with any other it has failed, and is tried again. It is called again for a slot whose process has died or whose Run has failed, so it has to be
	// idempotent; for a long one it pays to be resumable. It stops when ctx ends. The result is an object that is kept as JSON, or nil.
	Run func(ctx context.Context, slot time.Time) (result any, err error)
}

// A NotYetError says that the work of a slot can't be done before a time: that is no failure.
type NotYetError struct {
	Until time.Time // by the clock of Postgres, about
	Why   string
}

func (e *NotYetError) Error() string { return e.Why }

// A Rule says which of the slots that came while no process planned are made up for.
type Rule string

// The rules.
const (
	None   Rule = "none"   // none: a slot is done at its time or not at all
	Latest Rule = "latest" // the last one
	All    Rule = "all"    // each
)

// Catchup is the rule for slots that were missed, with its bounds.
type Catchup struct {
	Rule Rule

	// Window is how late a slot may be. An older one is missed. 0: it does not matter, but for None, where it must be above 0.
	Window time.Duration

	// Max is how many slots are made up for at most, the newest ones. For All, where it must be above 0.
	Max int
}

// OnTime is the rule of jobs whose missed slots are not made up for. A slot is missed if nothing has planned it within the window.
func OnTime(window time.Duration) Catchup { return Catchup{Rule: None, Window: window} }

// OnlyLatest is the rule of jobs whose last slot stands for those before it.
func OnlyLatest() Catchup { return Catchup{Rule: Latest} }

// Each is the rule of jobs whose every slot counts, within a window and up to a number. They are done one after the other, the oldest first, but
// one that has failed or can't be done yet does not keep later ones waiting.
func Each(window time.Duration, most int) Catchup {
	return Catchup{Rule: All, Window: window, Max: most}
}

// check reports what is wrong with a job.
func (j *Job) check() error {
	switch {
	case !slices.Contains(events.Jobs(), j.Name):
		return fmt.Errorf("job %s has no types of events", j.Name)
	case !slices.Contains([]Every{Hour, Day, Week, Month}, j.Every):
		return fmt.Errorf("job %s: there is no slot of a %q", j.Name, j.Every)
	case j.Catchup.Rule == None && j.Catchup.Window > 0, j.Catchup.Rule == Latest, j.Catchup.Rule == All && j.Catchup.Window > 0 && j.Catchup.Max > 0:
		return nil
	}
	return fmt.Errorf("job %s: the rule for missed slots is not complete: %+v", j.Name, j.Catchup)
}

// ahead reports whether a job is planned further ahead than a clock that is merely set back accounts for: one was far ahead, maybe for seconds. Without
// going back there would be no slot until the time that it showed.
func (j *Job) ahead(planned, now time.Time) bool {
	const most = 3 * time.Hour
	return planned.After(now.Add(most)) && planned.After(j.Every.Next(j.Every.Next(now)))
}

// plan decides about the slots that have come since the job was planned last. It is a pure function.
func (j *Job) plan(s postgres.JobState) postgres.JobPlan {
	last := j.Every.Floor(s.Now)
	if j.ahead(s.PlannedTo, s.Now) {
		// The slot before the present one: what the clock was ahead of may have come meanwhile. What had a row keeps it, and is not planned again.
		return postgres.JobPlan{To: j.Every.Before(last), Back: true}
	}
	if !last.After(s.PlannedTo) {
		return postgres.JobPlan{}
	}
	plan := postgres.JobPlan{To: last}
	if j.Catchup.Rule == All {
		plan.Before = s.Now.Add(-j.Catchup.Window)
		for slot := last; slot.After(s.PlannedTo); slot = j.Every.Before(slot) {
			if slot.Before(plan.Before) || len(plan.Due) == j.Catchup.Max {
				plan.Missed++
			} else {
				plan.Due = append(plan.Due, slot)
			}
		}
		slices.Reverse(plan.Due)
		return plan
	}
	plan.Before = last // what has not begun before this one is not begun any more
	for slot := j.Every.Before(last); slot.After(s.PlannedTo); slot = j.Every.Before(slot) {
		plan.Missed++
	}
	switch {
	case j.Catchup.Window > 0 && s.Now.Sub(last) > j.Catchup.Window:
		plan.Missed++
	case s.Running:
		plan.Skipped = []time.Time{last}
	default:
		plan.Due = []time.Time{last}
	}
	return plan
}
