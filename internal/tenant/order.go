package tenant

import (
	"time"

	"tenantflow/events"
)

// A Step is what is to be done next for an event.
type Step int

// The steps.
const (
	Apply     Step = iota // the event is decided
	DueFirst              // the first thing that is due is decided before
	HeadFirst             // the first event of the company's queue is brought to its end before
	Enqueue               // the event waits in the company's queue
	Drop                  // the event has no effect and leaves no trace
)

// Next says what is to be done for an event in a state. It is the one place where the order of things is decided: the queue of the
// company first, then what is due, then the event. DueFirst comes again until nothing is due; each time the state is another one.
func Next(s *State, c *Cause) Step {
	_, registers := c.Payload.(*events.CompanyRegistered)
	named, isDue := NamedDue(c.Payload)
	behind := s.Queue.Head != 0 && s.Queue.Head != s.Queue.Own
	switch {
	case isDue && named.Kind != DueClosing && c.Appended.Before(named.At):
		return Drop // whatever the state will be
	case s.Company == nil && !registers, s.Queue.Blocked && s.Queue.Own == 0, s.Queue.Blocked && behind && s.Company != nil:
		return Enqueue
	case behind && s.Company != nil:
		return HeadFirst
	case s.Company == nil:
		return Apply
	}
	due := s.DueBefore(c.Payload)
	switch {
	case isDue && named.Kind == DueClosing && !s.closes(c.Partition):
		return Drop
	case isDue && named.Kind == DueClosing: // by its place, whenever that is; and what is due before it comes before it
	case isDue && lists(due, named):
		return DueFirst
	case isDue:
		return Drop
	}
	if len(due) > 0 && !due[0].At.After(EffectTime(s, c.Event.Time)) {
		return DueFirst
	}
	return Apply
}

// moves reports whether an event is one of those that move a subscription in time.
func moves(payload any) bool {
	switch payload.(type) {
	case *events.UpgradeRequested, *events.DowngradeRequested, *events.CancelRequested, *events.Renewed, *events.ChangeWithdrawn,
		*events.Expired, *events.PaymentReceived, *events.PaymentFailed, *events.SubscriptionDue:
		return true
	}
	return false
}

// lists reports whether something is due that an event names. What is due before it happens before it, and may take it away.
func lists(due []Due, named Due) bool {
	for _, d := range due {
		if d.Kind == named.Kind && d.Name == named.Name && d.At.Equal(named.At) {
			return true
		}
	}
	return false
}

// EffectTime is when an event of the given time happens: never before what an event of its topic has already done to the company, and
// in microseconds, which is what the stores hold.
func EffectTime(s *State, at time.Time) time.Time {
	at = at.UTC().Truncate(time.Microsecond)
	if at.Before(s.LastEffect) {
		return s.LastEffect.UTC()
	}
	return at
}
