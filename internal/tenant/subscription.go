package tenant

import (
	"bytes"
	"errors"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tier"
)

// upgrade moves a company to a higher tier, at once.
func (r *Rules) upgrade(d *Decision, s *State, next *Subscription, p *events.UpgradeRequested) (*Decision, error) {
	if p.ExpectedTier != "" && p.ExpectedTier != next.Tier {
		return d.refuse(TierChanged, "the company has the tier %s, not %s as the request expects", next.Tier, p.ExpectedTier), nil
	}
	change, err := r.catalogue.Upgrade(s.current(), p.NewTier, d.At)
	if err != nil {
		return d.refused(err)
	}
	if s.paymentTaken(p.Payment, nil) {
		return d.refuse(DuplicatePayment, "the payment %s belongs to something else already", p.Payment.PaymentID), nil
	}
	from := next.Tier
	var dropped *Renewal
	if !next.paid() {
		dropped = d.dropRenewal(next) // it was to follow another period
		r.starts(next, change.Adjustment.PeriodEnd)
		next.Months, d.Adopt = 1, true
	}
	next.stay()
	next.take(change)
	r.settle(d, s, next, p.Payment, change.Adjustment.AmountMinor)
	if err := r.changeTier(d, s, next); err != nil {
		return nil, err
	}
	d.charge("upgrade", from, change.To.Name, change.Adjustment)
	d.pay(s, p.Payment, next.PeriodStart)
	d.note("subscription.upgraded", map[string]any{"from": from, "to": change.To.Name, "amount_minor": change.Adjustment.AmountMinor, "price_minor": next.PriceMinor})
	d.Outputs = func(w Written) []Output {
		out := []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeUpgraded, Data: map[string]any{
			"company_id": s.CompanyID, "upgraded_from": from, "upgraded_to": change.To.Name, "effective_date": stamp(d.At),
			"transaction_id": w.TransactionID, "limits": s.limits(next), "benefits": change.To.Benefits,
			"billing_adjustment": change.Adjustment,
		}}}
		return append(append(out, s.renewalDropped(dropped)...), s.configChanged(w)...)
	}
	return d, nil
}

// downgrade moves a company to a lower tier: at the end of its last recorded period, or at once.
func (r *Rules) downgrade(d *Decision, s *State, next *Subscription, p *events.DowngradeRequested) (*Decision, error) {
	current := s.current()
	if falls := r.fallsAhead(next); falls != "" && p.Effective != events.EffectiveImmediate {
		current.Tier = falls
	}
	to, err := r.catalogue.Downgrade(current, p.NewTier)
	if err != nil {
		return d.refused(err)
	}
	if p.Effective == events.EffectiveImmediate {
		change, err := r.catalogue.DowngradeNow(s.current(), p.NewTier, d.At)
		if err != nil {
			return d.refused(err)
		}
		next.stay()
		return r.fall(d, s, next, change)
	}
	r.schedule(next, to.Name, false)
	if !next.PendingAt.After(d.At) { // the period is over and waits for a renewal
		return r.atPeriodEnd(d, s, next)
	}
	d.Subscription = next
	d.note("subscription.downgrade_scheduled", map[string]any{"from": next.Tier, "to": to.Name, "at": stamp(*next.PendingAt)})
	d.Outputs = func(Written) []Output {
		return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeDowngradeScheduled, Data: map[string]any{
			"company_id": s.CompanyID, "current_tier": next.Tier, "new_tier": to.Name, "effective_date": stamp(*next.PendingAt),
		}}}
	}
	return d, nil
}

// atPeriodEnd does what was scheduled for the end of a period that is over. The downgrade to a paid tier begins a month, unless a
// renewal begins there: then that is the period, and is charged for.
func (r *Rules) atPeriodEnd(d *Decision, s *State, next *Subscription) (*Decision, error) {
	to, _ := r.catalogue.Tier(next.PendingTier)
	switch renewal := next.Renewal; {
	case renewal != nil && renewal.Tier != "": // what is pending is for the renewal's own end
		to, _ = r.catalogue.Tier(renewal.Tier)
		next.beginWith("")
	case next.CancelAtEnd:
		return r.endCancelled(d, s, next)
	default:
		next.stay()
	}
	start, anchor := next.PeriodEnd, next.anchor()
	change := tier.Change{From: next.Tier, To: to, At: d.At, AnchorDay: anchor}
	switch {
	case to.PriceMinor == 0:
		change.Adjustment, change.AnchorDay = tier.NoCharge(d.At, tier.NextPeriodEnd(d.At, d.At.Day())), d.At.Day()
	case next.Renewal != nil:
		change.Adjustment = tier.NoCharge(next.PeriodStart, next.PeriodEnd)
	default:
		change.Adjustment = tier.Charge(to.PriceMinor, start, tier.NextPeriodEnd(start, anchor))
		r.starts(next, change.Adjustment.PeriodEnd)
		next.Months, d.Adopt = 1, true
	}
	return r.fall(d, s, next, change)
}

// fall applies a change to a lower tier.
func (r *Rules) fall(d *Decision, s *State, next *Subscription, change tier.Change) (*Decision, error) {
	from, old := s.Subscription.Tier, s.limits(next)
	var dropped *Renewal
	if change.To.PriceMinor == 0 {
		dropped = d.dropRenewal(next)
		next.stay()
		next.Status, next.GraceUntil, next.RenewalUntil, next.Expired, next.Failed, next.Months = StatusActive, nil, nil, nil, false, 1
	}
	next.take(change)
	if err := r.changeTier(d, s, next); err != nil {
		return nil, err
	}
	d.charge("downgrade", from, change.To.Name, change.Adjustment)
	d.note("subscription.downgraded", map[string]any{"from": from, "to": change.To.Name, "amount_minor": change.Adjustment.AmountMinor, "price_minor": next.PriceMinor})
	d.Outputs = func(w Written) []Output {
		out := []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeDowngraded, Data: map[string]any{
			"company_id": s.CompanyID, "downgraded_from": from, "downgraded_to": change.To.Name, "effective_date": stamp(d.At),
			"transaction_id": w.TransactionID, "limits": s.limits(next), "billing_adjustment": change.Adjustment,
			"restrictions_applied": tier.Restrictions(old, s.limits(next), w.suspended()),
		}}}
		return append(append(out, s.renewalDropped(dropped)...), s.configChanged(w)...)
	}
	return d, nil
}

// cancel ends a subscription: at the end of its last recorded period, or at once. What is paid is not given back.
func (r *Rules) cancel(d *Decision, s *State, next *Subscription, p *events.CancelRequested) (*Decision, error) {
	if _, err := r.catalogue.Downgrade(s.current(), tier.Free); err != nil {
		return d.refused(err)
	}
	if p.Effective == events.EffectiveImmediate {
		return r.endCancelled(d, s, next)
	}
	r.schedule(next, tier.Free, true)
	if !next.PendingAt.After(d.At) {
		return r.endCancelled(d, s, next)
	}
	d.Subscription = next
	d.note("subscription.cancellation_scheduled", map[string]any{"tier": next.Tier, "at": stamp(*next.PendingAt)})
	d.Outputs = func(Written) []Output {
		return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeCancellationScheduled, Data: map[string]any{
			"company_id": s.CompanyID, "current_tier": next.Tier, "effective_date": stamp(*next.PendingAt),
		}}}
	}
	return d, nil
}

// endCancelled puts a company that has cancelled on the free tier.
func (r *Rules) endCancelled(d *Decision, s *State, next *Subscription) (*Decision, error) {
	from, old := next.Tier, s.limits(next)
	dropped := d.dropRenewal(next)
	r.toFree(next, d.At, StatusCancelled)
	if err := r.changeTier(d, s, next); err != nil {
		return nil, err
	}
	d.note("subscription.cancelled", map[string]any{"tier": from})
	d.Outputs = func(w Written) []Output {
		out := []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeCancelled, Data: map[string]any{
			"company_id": s.CompanyID, "cancelled_tier": from, "effective_date": stamp(d.At),
			"restrictions_applied": tier.Restrictions(old, s.limits(next), w.suspended()),
		}}}
		return append(append(out, s.renewalDropped(dropped)...), s.configChanged(w)...)
	}
	return d, nil
}

// withdraw takes back what was scheduled.
func (r *Rules) withdraw(d *Decision, s *State, next *Subscription) *Decision {
	if next.PendingAt == nil {
		return d.refuse(NothingScheduled, "no downgrade and no cancellation is scheduled")
	}
	change, to, at := "downgrade", next.PendingTier, *next.PendingAt
	if next.CancelAtEnd {
		change = "cancellation"
	}
	falls := r.fallsAhead(next)
	next.stay()
	if falls != "" && next.Renewal != nil && !at.Equal(next.PeriodEnd) { // it stands as it did before
		end := next.PeriodEnd
		next.PendingTier, next.PendingAt = falls, &end
	}
	d.Subscription = next
	d.note("subscription.change_withdrawn", map[string]any{"change": change, "to": to, "at": stamp(at)})
	d.Outputs = func(Written) []Output {
		return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeChangeWithdrawn, Data: map[string]any{
			"company_id": s.CompanyID, "change": change, "current_tier": next.Tier, "new_tier": to, "effective_date": stamp(at),
		}}}
	}
	return d
}

// expired records that a subscription is said to be over. Within a grace period it ends then.
func (r *Rules) expired(d *Decision, s *State, next *Subscription, sent time.Time, p *events.Expired) (*Decision, error) {
	switch {
	case p.ExpiredAt.After(sent):
		return d.refuse(NotExpired, "expired_at %s is to come; the event is of %s", stamp(p.ExpiredAt), stamp(sent)), nil
	case next.Status == StatusExpired && next.Expired != nil:
		d.note("subscription.expiry_repeated", map[string]any{"tier": next.Expired.Tier})
		d.Outputs = func(Written) []Output {
			return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeExpiryHandled, Data: map[string]any{
				"company_id": s.CompanyID, "action": "downgraded_to_free", "expired_tier": next.Expired.Tier, "already_expired": true,
				"restrictions_applied": map[string]any{}, "expired_at": stamp(next.PeriodStart), "expiry_handled_at": stamp(d.At),
			}}}
		}
		return d, nil
	case !next.paid():
		return d.refuse(NotExpired, "the company is on the tier %s, which does not expire", next.Tier), nil
	case next.Status != StatusPastDue && next.PeriodEnd.After(d.At):
		return d.refuse(NotExpired, "the subscription has not expired: its period ends at %s", stamp(next.PeriodEnd)), nil
	}
	return r.expire(d, s, next, d.At)
}

// expire ends what was not renewed or not paid.
func (r *Rules) expire(d *Decision, s *State, next *Subscription, handled time.Time) (*Decision, error) {
	from, old, term := next.Tier, s.limits(next), next.Term
	dropped := d.dropRenewal(next)
	if dropped != nil && term.PendingAt != nil { // it was for the end of the period that will not be
		end := term.PeriodEnd
		term.PendingAt = &end
	}
	r.toFree(next, d.At, StatusExpired)
	next.Expired = &term
	if err := r.changeTier(d, s, next); err != nil {
		return nil, err
	}
	d.ListUsers = true
	d.note("subscription.expired", map[string]any{"tier": from})
	d.Outputs = func(w Written) []Output {
		out := []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeExpiryHandled, Data: map[string]any{
			"company_id": s.CompanyID, "action": "downgraded_to_free", "expired_tier": from,
			"restrictions_applied": tier.Restrictions(old, s.limits(next), w.suspended()), "expired_at": stamp(d.At), "expiry_handled_at": stamp(handled),
		}}}
		out = append(out, s.renewalDropped(dropped)...)
		for _, user := range w.Users {
			out = append(out, Output{Topic: events.TopicNotifications, Type: events.TypeNotificationRequested, Data: map[string]any{
				"company_id": s.CompanyID, "user_id": user, "template": "subscription_expired",
				"data": map[string]any{"expired_tier": from, "tier": next.Tier, "expired_at": stamp(d.At)},
			}})
		}
		return append(out, s.configChanged(w)...)
	}
	return d, nil
}

// take puts a change into a subscription.
func (s *Subscription) take(change tier.Change) {
	s.Tier, s.PriceMinor, s.Limits, s.Benefits = change.To.Name, change.To.PriceMinor, change.To.Limits, change.To.Benefits
	s.PeriodStart, s.PeriodEnd, s.AnchorDay = change.Adjustment.PeriodStart, change.Adjustment.PeriodEnd, change.AnchorDay
	s.Currency = change.Adjustment.Currency
}

// schedule has the company fall to a tier at the end of its last recorded period. A downgrade with which that period begins stays.
func (r *Rules) schedule(s *Subscription, to string, cancels bool) {
	at := s.PeriodEnd
	if s.Renewal != nil {
		s.beginWith(r.fallsAhead(s))
		at = s.Renewal.End
	}
	s.PendingTier, s.PendingAt, s.CancelAtEnd = to, &at, cancels
}

// fallsAhead is the tier that the company falls to when the period that is recorded ahead begins; empty: it keeps its tier, or none is.
func (r *Rules) fallsAhead(s *Subscription) string {
	switch {
	case s.Renewal == nil:
		return ""
	case s.Renewal.Tier == "" && s.PendingAt != nil && s.PendingAt.Equal(s.Renewal.Start) && !r.leaves(s):
		return s.PendingTier
	}
	return s.Renewal.Tier
}

// beginWith has the period that is recorded ahead begin with a downgrade to a tier; empty: with none.
func (s *Subscription) beginWith(tier string) {
	renewal := *s.Renewal
	renewal.Tier, s.Renewal = tier, &renewal
}

// stay takes back what was scheduled.
func (s *Subscription) stay() {
	s.PendingTier, s.PendingAt, s.CancelAtEnd = "", nil, false
	if s.Renewal != nil {
		s.beginWith("")
	}
}

// starts makes a subscription one of a paid period that begins now and ends at the given time.
func (r *Rules) starts(next *Subscription, end time.Time) {
	until := end.Add(r.renewalGrace)
	next.Status, next.GraceUntil, next.RenewalUntil, next.Expired, next.Failed = StatusActive, nil, &until, nil, false
}

// toFree puts a subscription on the free tier, with a period of its own.
func (r *Rules) toFree(next *Subscription, at time.Time, status string) {
	free, _ := r.catalogue.Tier(tier.Free)
	next.Term = Term{Tier: free.Name, PriceMinor: free.PriceMinor, Limits: free.Limits, Benefits: free.Benefits,
		PeriodStart: at, PeriodEnd: tier.NextPeriodEnd(at, at.Day()), Months: 1, AnchorDay: at.Day()}
	next.Status, next.RenewalUntil, next.Expired = status, nil, nil
}

// changeTier has a changed subscription written, with all that follows from its tier.
func (r *Rules) changeTier(d *Decision, s *State, next *Subscription) error {
	d.Subscription, d.Seat = next, true
	if s.Company.Status == Purged {
		return nil // it has no configuration
	}
	return r.configure(d, s, next, s.limits(next))
}

// configure has the configuration repeat the tier and the limits that hold, if it does not yet.
func (r *Rules) configure(d *Decision, s *State, sub *Subscription, limits tier.Limits) error {
	entry, _ := r.catalogue.Tier(sub.Tier)
	config, err := withTier(s.Config, s.CompanyID, sub.Tier, limits, entry.SupportLevel)
	if err != nil {
		return err
	}
	// Postgres writes the same object in another way.
	before, err := object(s.Config)
	if err != nil {
		return err
	}
	same, err := marshal(before)
	if err != nil {
		return err
	}
	if !bytes.Equal(config, same) {
		d.Config = config
	}
	return nil
}

// note names the effect for the history and the audit.
func (d *Decision) note(action string, details map[string]any) { d.Action, d.Details = action, details }

// charge records the money of a change.
func (d *Decision) charge(kind, from, to string, money tier.Adjustment) {
	d.Transaction = &Transaction{Type: kind, OldTier: from, NewTier: to, Adjustment: money}
}

// refused turns a refusal of the catalogue into a decision.
func (d *Decision) refused(err error) (*Decision, error) {
	var refusal *tier.Refusal
	if errors.As(err, &refusal) {
		return d.refuse(refusal.Code, "%s", refusal.Message), nil
	}
	return nil, err
}
