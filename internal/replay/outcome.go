package replay

import "tenantflow/internal/task"

// An Outcome is what became of a record. Every record that a replay reads has exactly one.
type Outcome uint8

// The outcomes.
const (
	// Published: the effect was missing, and the event is published again.
	Published Outcome = iota
	// AlreadyThere: the event has had its effect, under this place or another one; or a copy of it was published by this replay.
	AlreadyThere
	// Settled: there is nothing to bring back. The record can't be taken and belongs to the dead letters, or its dead letter is
	// written, or it is an event that the service makes for itself.
	Settled
	// Conflict: another event has the identity. This one is, or belongs, in the dead letters.
	Conflict
	// Erased: its user has asked to be erased.
	Erased
	// Purged: its company was closed with purge.
	Purged
	// Filtered: it is not what was asked for.
	Filtered
	// TooOld: the usage table does not keep events of that age.
	TooOld
	// Failed: it could not be published: with the headers of a replay it is larger than the topic takes, or it has left the log.
	Failed
	outcomes
)

// outcomeNames are the names of the outcomes in counts and reports.
var outcomeNames = [outcomes]string{task.Published, "already_there", "settled", "conflict", "erased", "purged", "filtered", "too_old", "failed"} //nolint:gochecknoglobals // a constant table

// String is the outcome's name in counts and reports.
func (o Outcome) String() string {
	if o < outcomes {
		return outcomeNames[o]
	}
	return "unknown"
}

// Outcomes lists all outcomes in the order of reports.
func Outcomes() []Outcome {
	all := make([]Outcome, outcomes)
	for i := range all {
		all[i] = Outcome(i) // #nosec G115 -- few
	}
	return all
}

// StillCounted is the count, beside the outcomes, of published usage events that the totals still counted: their rows had been deleted by
// hand. The totals count them twice until they are repaired. It is an upper bound.
const StillCounted = "still_counted"

// Read is how many records have an outcome in some counts.
func Read(c task.Counts) int64 {
	var sum int64
	for _, o := range Outcomes() {
		sum += c[o.String()]
	}
	return sum
}

// A tally is the number of records by outcome.
type tally [outcomes]int64

func (t *tally) counts() task.Counts {
	c := task.Counts{}
	for i, n := range t {
		if n != 0 {
			c[outcomeNames[i]] = n
		}
	}
	return c
}
