package tenant

import (
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tier"
)

// A Preview is what a request for another tier would do: the decisions that would be made, on a copy of the state.
type Preview struct {
	Held *Subscription // when the change is asked for
	To   tier.Tier
	Down bool // it is a downgrade
	// HeldLimits are those that hold before the change, and Limits those that hold after it: with the overrides that are in force then.
	HeldLimits, Limits tier.Limits
	// Change is the change itself: of a downgrade, at the end of the period.
	Change *Decision
	// Now is what a downgrade does that does not wait; nil: it is an upgrade.
	Now *Decision
}

// Preview makes the decisions that a request for another tier leads to at a time, with what is due before. The error is a
// *tier.Refusal if the request would be refused.
func (r *Rules) Preview(s *State, newTier string, at time.Time) (*Preview, error) {
	to, _ := r.catalogue.Tier(newTier)
	s, err := r.advance(s, at)
	if err != nil {
		return nil, err
	}
	ask := func(payload any) (*Decision, error) {
		d, err := r.Decide(s, &Cause{Event: &events.Event{Key: s.CompanyID, Envelope: events.Envelope{Time: at}}, Payload: payload})
		if err == nil && d.Refused != nil {
			err = d.Refused
		}
		return d, err
	}
	up, refused := ask(&events.UpgradeRequested{CompanyID: s.CompanyID, NewTier: newTier})
	if refused == nil {
		return s.previewed(&Preview{To: to, Change: up}), nil
	}
	now, err := ask(&events.DowngradeRequested{CompanyID: s.CompanyID, NewTier: newTier, Effective: events.EffectiveImmediate})
	if err != nil {
		return nil, refused // it is the same tier, or none: no upgrade is what is said
	}
	end, err := ask(&events.DowngradeRequested{CompanyID: s.CompanyID, NewTier: newTier, Effective: events.EffectivePeriodEnd})
	if err == nil && end.Transaction == nil { // it is scheduled
		end, err = r.periodEnd(s.after(end))
	}
	if err != nil {
		return nil, err
	}
	return s.previewed(&Preview{To: to, Down: true, Change: end, Now: now}), nil
}

// previewed completes a preview with what is held before, and with the limits.
func (s *State) previewed(p *Preview) *Preview {
	then := s.Overrides.After(p.Change.At)
	p.Held, p.HeldLimits, p.Limits = s.Subscription, then.Over(s.Subscription.Limits), then.Over(p.To.Limits)
	return p
}

// advance is the state once what is due at an event's time has happened.
func (r *Rules) advance(s *State, at time.Time) (*State, error) {
	for {
		due := s.Due()
		if len(due) == 0 || due[0].At.After(EffectTime(s, at)) {
			return s, nil
		}
		d, err := r.Decide(s, DueCause(s.CompanyID, due[0]))
		if err != nil {
			return nil, err
		}
		s = s.after(d)
	}
}

// periodEnd is what happens at the end that something is scheduled for, once what is due before has happened: the period that is recorded
// ahead begins before its own end comes. A payment that has failed is taken to be made good by then.
func (r *Rules) periodEnd(s *State) (*Decision, error) {
	end := *s.Subscription.PendingAt
	for {
		due := slices.DeleteFunc(s.Due(), func(d Due) bool { return d.Kind == DuePaymentGrace })
		if len(due) == 0 {
			return nil, fmt.Errorf("nothing is scheduled for company %s", s.CompanyID)
		}
		d, err := r.Decide(s, DueCause(s.CompanyID, due[0]))
		if err != nil || due[0].Kind == DuePeriodEnd && due[0].At.Equal(end) {
			return d, err
		}
		s = s.after(d)
	}
}

// after is the state once a decision is written, as far as decisions without a payment of their own look at it.
func (s *State) after(d *Decision) *State {
	next := *s
	next.LastEffect = d.At
	if d.Config != nil {
		next.Config = d.Config
	}
	if d.Subscription != nil {
		if period := d.Subscription.PeriodStart; !period.Equal(s.Subscription.PeriodStart) {
			next.Books, next.Ahead = Books{}, Ahead{}
		}
		next.Subscription = d.Subscription
	}
	if d.Transaction != nil && d.Transaction.Adjustment.AmountMinor > 0 {
		next.Books.add(d.Transaction)
	}
	return &next
}

// add enters a charge for the period.
func (b *Books) add(t *Transaction) {
	b.Charged += t.Adjustment.AmountMinor
	b.Tiers = append(slices.Clone(b.Tiers), t.NewTier)
}
