package tenant

import (
	"time"

	"tenantflow/events"
	"tenantflow/internal/tier"
)

// renew records a period that the billing service names: the one that follows, the present one once more, or one after an expiry.
func (r *Rules) renew(d *Decision, s *State, next *Subscription, e *events.Event, p *events.Renewed) (*Decision, error) {
	start, end := p.PeriodStart.UTC().Truncate(time.Microsecond), p.PeriodEnd.UTC().Truncate(time.Microsecond)
	last := &next.Term // the renewal repeats it or follows it
	if next.Status == StatusExpired && next.Expired != nil {
		last = next.Expired
	}
	same := last.paid() && start.Equal(last.PeriodStart) && end.Equal(last.PeriodEnd)
	months, whole := tier.Months(start, end, last.anchor())
	ahead := next.Renewal
	switch {
	case !last.paid():
		return d.refuse(NothingToRenew, "the company is on the tier %s and has no paid period that could go on", next.Tier), nil
	case same && last == next.Expired && !end.After(d.At):
		return d.refuse(InvalidPeriod, "the subscription has expired, and the period is over at %s", stamp(end)), nil
	case same:
	case r.leaves(next):
		return d.refuse(NothingToRenew, "the company goes to the tier %s at %s; withdraw that first", next.PendingTier, stamp(*next.PendingAt)), nil
	case !whole:
		return d.refuse(InvalidPeriod, "%s to %s is not 1 to %d whole months by day %d", stamp(start), stamp(end), tier.MaxMonths, last.anchor()), nil
	case !start.Equal(last.PeriodEnd):
		return d.refuse(InvalidPeriod, "the period begins at %s, and the present one is %s to %s", stamp(start), stamp(last.PeriodStart), stamp(last.PeriodEnd)), nil
	case !end.After(d.At):
		return d.refuse(InvalidPeriod, "the period is over at %s", stamp(end)), nil
	case ahead != nil && !ahead.End.Equal(end):
		return d.refuse(InvalidPeriod, "another period is recorded ahead: %s to %s", stamp(ahead.Start), stamp(ahead.End)), nil
	}
	if s.paymentTaken(p.Payment, &start) {
		return d.refuse(DuplicatePayment, "the payment %s belongs to something else already", p.Payment.PaymentID), nil
	}
	d.pay(s, p.Payment, start)
	switch {
	case same && last == next.Expired:
		r.reinstate(d, next)
		if err := r.changeTier(d, s, next); err != nil {
			return nil, err
		}
		return d.renewed(s, next, map[string]any{"reinstated": true}), nil
	case same:
		r.settle(d, s, next, p.Payment, 0)
		return d.renewed(s, next, map[string]any{"reinstated": false}), nil
	}
	renewal := &Renewal{Start: start, End: end, Months: months, RequestID: e.ID, RequestSource: e.Source}
	if p.Payment != nil {
		renewal.PaymentID, renewal.Payment = p.Payment.PaymentID, p.Payment.All
	}
	if !start.After(d.At) {
		return r.begin(d, s, next, renewal)
	}
	if ahead != nil && renewal.PaymentID == "" {
		renewal.PaymentID, renewal.Payment = ahead.PaymentID, ahead.Payment
	}
	if ahead != nil {
		renewal.Tier = ahead.Tier
	}
	next.Renewal, d.Subscription = renewal, next
	d.note("subscription.renewal_recorded", map[string]any{"period_start": stamp(start), "period_end": stamp(end)})
	d.Outputs = func(Written) []Output {
		return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeRenewalRecorded, Data: map[string]any{
			"company_id": s.CompanyID, "tier": last.Tier, "period_start": stamp(start), "period_end": stamp(end), "effective_date": stamp(start),
			"began": false,
		}}}
	}
	return d, nil
}

// leaves reports whether the company is to go to a tier without a price.
func (r *Rules) leaves(s *Subscription) bool {
	if s.PendingAt == nil {
		return false
	}
	to, _ := r.catalogue.Tier(s.PendingTier)
	return s.CancelAtEnd || to.PriceMinor == 0
}

// begin begins a period that follows: of the tier that is held, or of the one that an expiry has ended.
func (r *Rules) begin(d *Decision, s *State, next *Subscription, renewal *Renewal) (*Decision, error) {
	from, reinstated := next.Tier, next.Expired != nil
	if reinstated {
		anchor := next.Expired.anchor()
		next.Term = *next.Expired
		next.AnchorDay = anchor
		next.stay() // what was scheduled was for a period that is over
	}
	next.AnchorDay = next.anchor()
	entry, listed := r.catalogue.Tier(next.Tier)
	next.Limits, next.Benefits = entry.Limits, entry.Benefits
	if listed { // a tier that has left the catalogue keeps its price
		next.PriceMinor = entry.PriceMinor
	}
	next.PeriodStart, next.PeriodEnd, next.Months, next.Renewal = renewal.Start, renewal.End, renewal.Months, nil
	r.starts(next, renewal.End)
	if err := r.changeTier(d, s, next); err != nil {
		return nil, err
	}
	d.Adopt = true
	amount := next.PriceMinor * int64(next.Months)
	if s.Subscription.Renewal != nil && s.Ahead.Failed && s.Ahead.Received < amount {
		next.fail(d.At) // what failed before belongs to this period
	}
	d.charge("renewal", from, next.Tier, tier.Charge(amount, next.PeriodStart, next.PeriodEnd))
	d.Transaction.Payment = renewal.Payment
	return d.renewed(s, next, map[string]any{"reinstated": reinstated, "began": true, "amount_minor": amount, "currency": next.Currency,
		"billing_adjustment": d.Transaction.Adjustment}), nil
}

// fail begins the grace period of a payment that has failed.
func (s *Subscription) fail(at time.Time) {
	until := at.Add(PaymentGrace)
	s.Status, s.GraceUntil, s.RenewalUntil, s.Failed = StatusPastDue, &until, nil, true
}

// renewed says which period the company has.
func (d *Decision) renewed(s *State, next *Subscription, more map[string]any) *Decision {
	d.note("subscription.renewed", map[string]any{"tier": next.Tier, "period_start": stamp(next.PeriodStart), "period_end": stamp(next.PeriodEnd),
		"reinstated": more["reinstated"], "price_minor": next.PriceMinor})
	d.Outputs = func(w Written) []Output {
		data := map[string]any{"company_id": s.CompanyID, "tier": next.Tier, "period_start": stamp(next.PeriodStart), "period_end": stamp(next.PeriodEnd),
			"status": next.Status}
		if next.GraceUntil != nil {
			data["grace_until"] = stamp(*next.GraceUntil)
		}
		for name, value := range more {
			data[name] = value
		}
		if w.TransactionID != "" {
			data["transaction_id"] = w.TransactionID
		}
		return append([]Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeRenewalRecorded, Data: data}}, s.configChanged(w)...)
	}
	return d
}

// reinstate brings back what an expiry has ended. The period was charged when it began.
func (r *Rules) reinstate(d *Decision, next *Subscription) {
	next.Term = *next.Expired
	next.Status, next.Expired = StatusActive, nil
	r.paid(d, next)
}

// paid ends the grace period of a failed payment. The one for the renewal, if the period is over, begins now.
func (r *Rules) paid(d *Decision, next *Subscription) {
	until := next.PeriodEnd
	if until.Before(d.At) {
		until = d.At
	}
	until = until.Add(r.renewalGrace)
	next.Status, next.GraceUntil, next.RenewalUntil = StatusActive, nil, &until
	d.Subscription = next
}

// dropRenewal takes back a period that was recorded ahead and can't begin any more.
func (d *Decision) dropRenewal(next *Subscription) *Renewal {
	dropped := next.Renewal
	if dropped != nil {
		next.Renewal, d.Release = nil, &dropped.Start
	}
	return dropped
}

// renewalDropped is the result of that; none if nothing was dropped.
func (s *State) renewalDropped(dropped *Renewal) []Output {
	if dropped == nil {
		return nil
	}
	return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeChangeWithdrawn, Data: map[string]any{
		"company_id": s.CompanyID, "change": "renewal", "period_start": stamp(dropped.Start), "period_end": stamp(dropped.End),
		"request_id": dropped.RequestID, "request_source": dropped.RequestSource,
	}}}
}
