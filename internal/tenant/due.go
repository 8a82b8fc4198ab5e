package tenant

import (
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
)

// DueSource is the source of the events by which something is due.
const DueSource = "/tenantflow/schedule"

// Kinds of what is due, in the order in which they happen where their time is the same.
const (
	DuePeriodEnd    = "period_end"    // a downgrade or cancellation that was scheduled
	DueRenewal      = "renewal"       // a period that was recorded ahead begins
	DuePaymentGrace = "payment_grace" // a failed payment has not been made good
	DueRenewalGrace = "renewal_grace" // a period that is over was not renewed
)

// A Due is something that happens to a subscription, or to the limits of a company, at a time.
type Due struct {
	Kind string
	Name string // the limit whose override ends; empty: it is of another kind
	At   time.Time
}

// Due lists what is scheduled for the subscription, in the order in which it happens. Nothing is for one that was closed with its company.
func (s *State) Due() []Due {
	sub := s.Subscription
	if sub == nil || sub.ClosedAt != nil {
		return nil
	}
	var all []Due
	add := func(kind string, at *time.Time) {
		if at != nil {
			all = append(all, Due{Kind: kind, At: at.UTC()})
		}
	}
	if sub.Renewal != nil && sub.Renewal.Tier != "" {
		add(DuePeriodEnd, &sub.Renewal.Start)
	}
	add(DuePeriodEnd, sub.PendingAt)
	if sub.Renewal != nil {
		add(DueRenewal, &sub.Renewal.Start)
	}
	if sub.Status == StatusPastDue {
		add(DuePaymentGrace, sub.GraceUntil)
	}
	add(DueRenewalGrace, sub.RenewalUntil)
	slices.SortStableFunc(all, func(a, b Due) int { return a.At.Compare(b.At) })
	return all
}

// DueCause is the event of something that is due to a company. Its identity is made of the company, the kind and the time, so it is
// the same wherever it is found.
func DueCause(company string, due Due) *Cause {
	at := due.At.UTC()
	if due.Kind == DueOverride {
		return &Cause{
			Event: &events.Event{Key: company, Envelope: events.Envelope{
				Source: DueSource, ID: fmt.Sprintf("due:%s:%s:%s:%s", company, due.Kind, due.Name, stamp(at)), Type: events.TypeCompanyDue, Time: at,
				DataContentType: "application/json",
				Data:            fmt.Appendf(nil, `{"company_id":%q,"due_at":%q,"kind":%q,"name":%q}`, company, stamp(at), due.Kind, due.Name),
			}},
			Payload: &events.CompanyDue{CompanyID: company, Kind: due.Kind, Name: due.Name, DueAt: at},
		}
	}
	return &Cause{
		Event: &events.Event{Key: company, Envelope: events.Envelope{
			Source: DueSource, ID: fmt.Sprintf("due:%s:%s:%s", company, due.Kind, stamp(at)), Type: events.TypeSubscriptionDue, Time: at,
			DataContentType: "application/json",
			Data:            fmt.Appendf(nil, `{"company_id":%q,"due_at":%q,"kind":%q}`, company, stamp(at), due.Kind), // ids have no character to escape
		}},
		Payload: &events.SubscriptionDue{CompanyID: company, Kind: due.Kind, DueAt: at},
	}
}

// happen does what is due.
func (r *Rules) happen(d *Decision, s *State, next *Subscription, c *Cause, p *events.SubscriptionDue) (*Decision, error) {
	handled := c.Appended
	if handled.Before(d.At) {
		handled = d.At
	}
	var err error
	switch p.Kind {
	case DueClosing:
		d = r.closeSubscription(d, s, next, c.Partition)
	case DuePeriodEnd:
		d, err = r.atPeriodEnd(d, s, next)
	case DueRenewal:
		renewal := next.Renewal
		next.Renewal = nil
		d, err = r.begin(d, s, next, renewal)
		if err == nil {
			d.Covers = renewal.PaymentID
		}
	default:
		d, err = r.expire(d, s, next, handled)
	}
	if err != nil || d.Silent {
		return d, err
	}
	outputs := d.Outputs
	d.Outputs = func(w Written) []Output {
		all := outputs(w)
		for i := range all {
			if all[i].Topic == events.TopicSubscriptionResults {
				all[i].Data["handled_at"] = stamp(handled)
			}
		}
		return all
	}
	return d, nil
}
