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
//
// Where no event of the subscription was read yet, it is not known which partition they are in: their publisher decides that. Then the closing
// goes to all.
func (r *Rules) closeCompany(d *Decision, s *State, p *events.CompanyClosed) *Decision {
	d.Close, d.Purge = true, p.Purge
	sub := s.Subscription
	d.Forget = p.Purge && sub.ended()
	var closing []Output
	if sub != nil && sub.ClosedAt == nil && s.Company.Status == Active {
		e := &DueCause(s.CompanyID, Due{Kind: DueClosing, At: d.At}).Event.Envelope
		closing = []Output{{Topic: events.TopicSubscription, Type: e.Type, Event: e, Partition: sub.Partition, Everywhere: sub.Partition == nil}}
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
// first, the company is still to be closed. A closing that is read before any other event ends it for the events of its own partition:
// those of another one may have come before.
func (r *Rules) closeSubscription(d *Decision, s *State, next *Subscription, partition int) *Decision {
	if s.Subscription.Partition != nil {
		next.reopen() // it ended for the events of another partition
	} else {
		// Events of another partition may be of before it, and are not moved behind it.
		next.Partition, next.ClosedIn, d.Undated = nil, append(slices.Clone(next.ClosedIn), partition), true
	}
	if s.Partitions > 0 && len(next.ClosedIn) >= s.Partitions {
		next.ClosedIn = nil // there is no other
	}
	if next.ClosedAt != nil {
		d.Subscription, d.Silent, d.Forget = next, true, s.Company.Status == Purged && next.ended() // in another partition, before
		return d
	}
	next.stay()
	next.Status, next.GraceUntil, next.RenewalUntil = StatusCancelled, nil, nil
	dropped := d.dropRenewal(next)
	at := d.At
	next.ClosedAt = &at
	d.Subscription, d.Forget = next, s.Company.Status == Purged && next.ended()
	d.note("subscription.closed", map[string]any{"tier": next.Tier})
	d.Outputs = func(Written) []Output { return s.renewalDropped(dropped) }
	return d
}

// ended reports whether no event of any partition changes it any more.
func (s *Subscription) ended() bool { return s != nil && s.ClosedAt != nil && len(s.ClosedIn) == 0 }

// reopen takes back an end that was read in another partition than the first event. Until then the subscription was as it was made.
func (s *Subscription) reopen() {
	if s.ClosedAt != nil {
		s.ClosedAt, s.ClosedIn, s.Status = nil, nil, StatusActive
	}
}

// closed reports whether no event of subscription.events that comes from a partition changes anything any more.
func (s *State) closed(partition int) bool {
	if s.Subscription == nil {
		return s.Company != nil && s.Company.Status != Active
	}
	return s.Subscription.ended() || s.Subscription.ClosedAt != nil && slices.Contains(s.Subscription.ClosedIn, partition)
}

// closes reports whether a closing that comes from a partition has an effect: it is not the closing of a partition that the company's events
// are not in.
func (s *State) closes(partition int) bool {
	if s.closed(partition) {
		return false
	}
	sub := s.Subscription
	return sub == nil || sub.Partition == nil || *sub.Partition == partition
}

// ofPurged takes out of a decision what a purged company has none of: users and a configuration. Its books go on until its closing is read.
func (d *Decision) ofPurged() {
	d.Seat, d.ListUsers, d.Config = false, false, nil
}
