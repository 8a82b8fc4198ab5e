package redrive

import "tenantflow/internal/task"

// An Outcome is what became of a letter. Every letter that was chosen has exactly one.
type Outcome uint8

// The outcomes.
const (
	// Published: the event is published again. The letter is redriven.
	Published Outcome = iota
	// AlreadyThere: the event has had its effect, so there was nothing to publish. The letter is settled.
	AlreadyThere
	// NotOpen: the letter was redriven, dropped or settled before.
	NotOpen
	// Conflict: another event has the identity, so this one can never be taken. The letter stays open, as with all that follow.
	Conflict
	// Invalid: the event, patched or not, would become a dead letter again.
	Invalid
	// Unpatched: the patch can't be applied to the event.
	Unpatched
	// TooLarge: the letter holds sizes and hashes in place of the original bytes.
	TooLarge
	// Erased: the user of the event has asked to be erased.
	Erased
	// Purged: the company of the event was closed with purge.
	Purged
	// Failed: with the headers of a redrive the record is larger than the topic takes, or the letter has left the log.
	Failed
	outcomes
)

// outcomeNames are the names of the outcomes in counts and reports.
var outcomeNames = [outcomes]string{task.Published, "already_there", "not_open", "conflict", "invalid", "unpatched", "too_large", "erased", "purged", "failed"} //nolint:gochecknoglobals // a constant table

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

// Chosen is how many letters have an outcome in some counts.
func Chosen(c task.Counts) int64 {
	var sum int64
	for _, o := range Outcomes() {
		sum += c[o.String()]
	}
	return sum
}

// A Verdict is what becomes of one letter.
type Verdict struct {
	Outcome Outcome
	Why     string // in words, where the letter stays open
}
