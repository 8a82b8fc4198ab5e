package tenant

import (
	"fmt"
	"time"

	"tenantflow/events"
)

// A Due is the payload of what happens to a subscription by itself: when its period ends, or its time of grace.
type Due struct {
	CompanyID string
	At        time.Time
	// ByClock: nobody but the clock says that it is due. What waits for the company comes first then. Otherwise it is an event that
	// needs it done before.
	ByClock bool
}

// DueSource is the source of the events by which things happen by themselves.
const DueSource = "/tenantflow/subscription"

// DueCause makes the event of what is due to a company. Its identity is made of the company and the time, so whoever finds it
// due, and however often, it happens once.
func DueCause(s *State) *Cause {
	sub := s.Subscription
	what := "expiry"
	if sub.changesAtEnd() {
		what = "period_end"
	}
	at := sub.Due.UTC()
	return &Cause{
		Event: &events.Event{Key: s.CompanyID, Envelope: events.Envelope{
			Source: DueSource, ID: fmt.Sprintf("%s:%s:%s", what, s.CompanyID, stamp(at)), Type: "subscription." + what, Time: at,
			Data: []byte(fmt.Sprintf(`{"company_id":%q}`, s.CompanyID)),
		}},
		Payload: &Due{CompanyID: s.CompanyID, At: at},
	}
}

// changesAtEnd tells whether what is due is a change that has waited for the end of the period, and not the end of the subscription
// or of a time of grace before that.
func (s *Subscription) changesAtEnd() bool { return s.PendingTier != "" && !s.Due.Before(s.PeriodEnd) }

// IsDue tells whether something has to happen to the company before an event of the given payload and time. What brings money
// comes first, even if it comes a little late. An expiry that is told does not come before itself.
func IsDue(s *State, payload any, at time.Time) bool {
	switch p := payload.(type) {
	case *events.UpgradeRequested, *events.DowngradeRequested, *events.CancelRequested, *events.PaymentFailed:
		return s.IsOver(at)
	case *events.Expired:
		return s.IsOver(at) && !s.tells(p)
	}
	return false
}

// tells is whether an event tells of the very expiry that is due. Then it is the expiry: had it been done before, the answer to a
// sender who is right would be that the subscription has not expired.
func (s *State) tells(p *events.Expired) bool {
	return !s.Subscription.changesAtEnd() && !p.ExpiredAt.Before(*s.Subscription.Due)
}

// IsOver tells whether something has to happen to the company by itself by the given time.
func (s *State) IsOver(at time.Time) bool {
	return s.Company != nil && s.Company.Status == Active && s.Subscription != nil && s.Subscription.Due != nil && !s.Subscription.Due.After(at)
}

// due does what is due.
func (r *Rules) due(d *Decision, s *State, held *Subscription, p *Due) (*Decision, error) {
	next := *held
	switch {
	case next.PendingTier == "" || p.At.Before(next.PeriodEnd):
		return r.expire(d, s, &next, p.At)
	case next.CancelAtEnd:
		return r.endCancelled(d, s, &next)
	}
	change := r.catalogue.AtPeriodEnd(next.current(), next.PendingTier)
	next.stay()
	return r.fall(d, s, &next, change)
}
