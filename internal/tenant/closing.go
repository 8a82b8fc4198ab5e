package tenant

import (
	"slices"

	"tenantflow/events"
)

// DueClosing is the kind of the event by which a subscription ends with its company. It is published when the company is closed, and not
// when a time has come: only its place among the events of subscription.events says what came before.
const DueClosing = "closing"

// closeCompany ends a company. Its data stays, unless it is to be purged. The subscription goes on until the closing is read in its own
// topic: else it would depend on which of the two topics was read first whether an upgrade of before the closing is refused.
func (r *Rules) closeCompany(d *Decision, s *State, p *events.CompanyClosed) *Decision {
	d.Close, d.Purge = true, p.Purge
	sub := s.Subscription
	d.Forget = p.Purge && sub != nil && sub.ClosedAt != nil
	var closing []Output
	if sub != nil && sub.ClosedAt == nil && s.Company.Status == Active {
		e := &DueCause(s.CompanyID, Due{Kind: DueClosing, At: d.At}).Event.Envelope
		closing = []Output{{Topic: events.TopicSubscription, Type: e.Type, Event: e, Partition: sub.Partition}}
	}
	d.note("company.closed", map[string]any{"purged": p.Purge})
	d.Outputs = func(Written) []Output {
		out := append(slices.Clone(closing), Output{Topic: events.TopicCompanyResults, Type: events.TypeCompanyArchived, Data: map[string]any{
			"company_id": s.CompanyID, "purged": p.Purge, "archived_at": stamp(d.At),
		}})
		if p.Purge {
			out = append(out, Output{Topic: events.TopicCompanyConfig, Tombstone: true, Data: map[string]any{"company_id": s.CompanyID}})
		}
		return out
	}
	return d
}

// closeSubscription ends a subscription with its company: the tier stays, and nothing is to come any more. Where subscription.events is read
// first, the company is still to be closed.
func (r *Rules) closeSubscription(d *Decision, s *State, next *Subscription) *Decision {
	next.stay()
	next.Status, next.GraceUntil, next.RenewalUntil = StatusCancelled, nil, nil
	dropped := d.dropRenewal(next)
	at := d.At
	next.ClosedAt = &at
	d.Subscription, d.Forget = next, s.Company.Status == Purged
	d.note("subscription.closed", map[string]any{"tier": next.Tier})
	d.Outputs = func(Written) []Output { return s.renewalDropped(dropped) }
	return d
}

// closed reports whether no event of subscription.events changes anything any more.
func (s *State) closed() bool {
	if s.Subscription == nil {
		return s.Company != nil && s.Company.Status == Purged
	}
	return s.Subscription.ClosedAt != nil
}

// ofPurged takes out of a decision what a purged company has none of: users and a configuration. Its books go on until its closing is read.
func (d *Decision) ofPurged() {
	d.Seat, d.ListUsers, d.Config = false, false, nil
}
