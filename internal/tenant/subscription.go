package tenant

import (
	"bytes"
	"errors"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tier"
)

// longestPeriod bounds what a renewal may say: a year, a leap year included.
const longestPeriod = 366 * 24 * time.Hour

// upgrade moves a company to a higher tier, at once.
func (r *Rules) upgrade(d *Decision, s *State, next *Subscription, p *events.UpgradeRequested) (*Decision, error) {
	if p.ExpectedTier != "" && p.ExpectedTier != next.Tier {
		return d.refuse(TierChanged, "the company has the tier %s, not %s as the request expects", next.Tier, p.ExpectedTier), nil
	}
	change, err := r.catalogue.Upgrade(next.current(), p.NewTier, d.At)
	if err != nil {
		return d.refused(err)
	}
	if taken := s.paymentTaken(p.Payment); taken {
		return d.refuse(DuplicatePayment, "the payment %s belongs to something else already", p.Payment.PaymentID), nil
	}
	from := next.Tier
	if next.PriceMinor == 0 {
		next.Status, next.GraceUntil = StatusActive, nil
	}
	next.stay()
	next.take(change)
	if d, err = r.changeTier(d, s, next); err != nil {
		return nil, err
	}
	d.charge("upgrade", from, change.To.Name, change.Adjustment, p.Payment, s.Payment)
	d.note("subscription.upgraded", map[string]any{"from": from, "to": change.To.Name, "amount_minor": change.Adjustment.AmountMinor})
	d.Outputs = func(w Written) []Output {
		return append([]Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeUpgraded, Data: map[string]any{
			"company_id": s.CompanyID, "upgraded_from": from, "upgraded_to": change.To.Name, "effective_date": stamp(d.At),
			"transaction_id": w.TransactionID, "limits": change.To.Limits, "benefits": change.To.Benefits,
			"billing_adjustment": change.Adjustment,
		}}}, s.configChanged(w)...)
	}
	return d, nil
}

// downgrade moves a company to a lower tier: at the end of its period, or at once.
func (r *Rules) downgrade(d *Decision, s *State, next *Subscription, p *events.DowngradeRequested) (*Decision, error) {
	if p.Effective == events.EffectiveImmediate {
		change, err := r.catalogue.DowngradeNow(next.current(), p.NewTier, d.At)
		if err != nil {
			return d.refused(err)
		}
		next.stay()
		return r.fall(d, s, next, change)
	}
	to, err := r.catalogue.Downgrade(next.current(), p.NewTier)
	if err != nil {
		return d.refused(err)
	}
	next.PendingTier, next.CancelAtEnd = to.Name, false
	d.Subscription = next
	d.note("subscription.downgrade_scheduled", map[string]any{"from": next.Tier, "to": to.Name, "at": stamp(next.PeriodEnd)})
	d.Outputs = func(Written) []Output {
		return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeDowngradeScheduled, Data: map[string]any{
			"company_id": s.CompanyID, "current_tier": next.Tier, "new_tier": to.Name, "effective_date": stamp(next.PeriodEnd),
		}}}
	}
	return d, nil
}

// fall applies a change to a lower tier.
func (r *Rules) fall(d *Decision, s *State, next *Subscription, change tier.Change) (*Decision, error) {
	from, old := next.Tier, next.Limits
	if change.To.PriceMinor == 0 {
		next.Status, next.GraceUntil = StatusActive, nil
	}
	next.take(change)
	d, err := r.changeTier(d, s, next)
	if err != nil {
		return nil, err
	}
	d.charge("downgrade", from, change.To.Name, change.Adjustment, nil, nil)
	d.note("subscription.downgraded", map[string]any{"from": from, "to": change.To.Name, "amount_minor": change.Adjustment.AmountMinor})
	d.Outputs = func(w Written) []Output {
		return append([]Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeDowngraded, Data: map[string]any{
			"company_id": s.CompanyID, "downgraded_from": from, "downgraded_to": change.To.Name, "effective_date": stamp(d.At),
			"transaction_id": w.TransactionID, "limits": change.To.Limits, "billing_adjustment": change.Adjustment,
			"restrictions_applied": tier.Restrictions(old, change.To.Limits, w.suspended()),
		}}}, s.configChanged(w)...)
	}
	return d, nil
}

// cancel ends a subscription: at the end of its period, or at once. What is paid is not given back.
func (r *Rules) cancel(d *Decision, s *State, next *Subscription, p *events.CancelRequested) (*Decision, error) {
	if _, err := r.catalogue.Downgrade(next.current(), tier.Free); err != nil {
		return d.refused(err)
	}
	if p.Effective == events.EffectiveImmediate {
		return r.endCancelled(d, s, next)
	}
	next.PendingTier, next.CancelAtEnd = tier.Free, true
	d.Subscription = next
	d.note("subscription.cancellation_scheduled", map[string]any{"tier": next.Tier, "at": stamp(next.PeriodEnd)})
	d.Outputs = func(Written) []Output {
		return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeCancellationScheduled, Data: map[string]any{
			"company_id": s.CompanyID, "current_tier": next.Tier, "effective_date": stamp(next.PeriodEnd),
		}}}
	}
	return d, nil
}

// endCancelled puts a company that has cancelled on the free tier.
func (r *Rules) endCancelled(d *Decision, s *State, next *Subscription) (*Decision, error) {
	from, old := next.Tier, next.Limits
	r.toFree(next, d.At, StatusCancelled)
	d, err := r.changeTier(d, s, next)
	if err != nil {
		return nil, err
	}
	d.note("subscription.cancelled", map[string]any{"tier": from})
	d.Outputs = func(w Written) []Output {
		return append([]Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeCancelled, Data: map[string]any{
			"company_id": s.CompanyID, "cancelled_tier": from, "effective_date": stamp(d.At),
			"restrictions_applied": tier.Restrictions(old, next.Limits, w.suspended()),
		}}}, s.configChanged(w)...)
	}
	return d, nil
}

// renew begins the next period, as the billing service says it.
func (r *Rules) renew(d *Decision, s *State, next *Subscription, p *events.Renewed) (*Decision, error) {
	start, end := p.PeriodStart.UTC().Truncate(time.Microsecond), p.PeriodEnd.UTC().Truncate(time.Microsecond)
	same := start.Equal(next.PeriodStart) && end.Equal(next.PeriodEnd)
	late := next.Status == StatusExpired && next.PreviousTier != ""
	switch {
	case !end.After(start):
		return d.refuse(InvalidPeriod, "the period ends at %s, which is not after its start at %s", stamp(end), stamp(start)), nil
	case end.Sub(start) > longestPeriod:
		return d.refuse(InvalidPeriod, "the period is longer than a year"), nil
	case late && !end.After(d.At):
		return d.refuse(InvalidPeriod, "the subscription expired, and the period that would reinstate it is over at %s", stamp(end)), nil
	case !late && !same && (!end.After(next.PeriodEnd) || start.Before(next.PeriodStart)):
		return d.refuse(InvalidPeriod, "the period %s to %s does not come after the current one, %s to %s",
			stamp(start), stamp(end), stamp(next.PeriodStart), stamp(next.PeriodEnd)), nil
	case s.paymentTaken(p.Payment):
		return d.refuse(DuplicatePayment, "the payment %s belongs to something else already", p.Payment.PaymentID), nil
	}
	from := next.Tier
	name := next.Tier
	switch {
	case late:
		name = next.PreviousTier
	case next.PendingTier != "" && !next.CancelAtEnd && !same:
		// Who pays for another period does not go to a tier that costs nothing.
		if pending, _ := r.catalogue.Tier(next.PendingTier); pending.PriceMinor > 0 {
			name = next.PendingTier
		}
	}
	to, _ := r.catalogue.Tier(name)
	next.stay()
	next.Status, next.GraceUntil, next.PreviousTier = StatusActive, nil, ""
	if !same {
		next.Tier, next.PriceMinor, next.Limits, next.Benefits = name, to.PriceMinor, to.Limits, to.Benefits
		next.AnchorDay = tier.AnchorDay(start, end, next.current().Anchor())
		next.PeriodStart, next.PeriodEnd = start, end
	}
	d, err := r.changeTier(d, s, next)
	if err != nil {
		return nil, err
	}
	if !same && to.PriceMinor > 0 {
		d.charge("renewal", from, name, tier.Adjustment{AmountMinor: to.PriceMinor, Currency: next.Currency, PeriodStart: start, PeriodEnd: end,
			Lines: []tier.Line{{Description: "charge", AmountMinor: to.PriceMinor}}}, p.Payment, s.Payment)
	} else if p.Payment != nil {
		d.Payment = namedPayment(s, p.Payment, s.Payment)
	}
	d.note("subscription.renewed", map[string]any{"tier": name, "period_start": stamp(start), "period_end": stamp(end), "reinstated": late})
	d.Outputs = func(w Written) []Output {
		data := map[string]any{"company_id": s.CompanyID, "tier": name, "period_start": stamp(start), "period_end": stamp(end), "reinstated": late}
		if w.TransactionID != "" {
			data["transaction_id"], data["amount_minor"], data["currency"] = w.TransactionID, to.PriceMinor, next.Currency
		}
		return append([]Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeRenewalRecorded, Data: data}}, s.configChanged(w)...)
	}
	return d, nil
}

// expire ends what was not renewed or not paid, if it is over at the given time.
func (r *Rules) expire(d *Decision, s *State, next *Subscription, at time.Time) (*Decision, error) {
	until := next.PeriodEnd
	if next.Status == StatusPastDue && next.GraceUntil != nil {
		until = *next.GraceUntil // which may be later: who is given time to pay keeps the tier that long
	}
	over := !at.Before(until)
	switch {
	case next.PriceMinor == 0:
		return d.refuse(NotExpired, "the company is on the tier %s, which does not expire", next.Tier), nil
	case !over && next.GraceUntil != nil:
		return d.refuse(NotExpired, "at %s the subscription had not expired: its period ends at %s, its time of grace at %s",
			stamp(at), stamp(next.PeriodEnd), stamp(*next.GraceUntil)), nil
	case !over:
		return d.refuse(NotExpired, "at %s the subscription had not expired: its period ends at %s", stamp(at), stamp(next.PeriodEnd)), nil
	}
	from, old := next.Tier, next.Limits
	r.toFree(next, d.At, StatusExpired)
	next.PreviousTier = from
	d, err := r.changeTier(d, s, next)
	if err != nil {
		return nil, err
	}
	d.ListUsers = true
	d.note("subscription.expired", map[string]any{"tier": from})
	d.Outputs = func(w Written) []Output {
		out := []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypeExpiryHandled, Data: map[string]any{
			"company_id": s.CompanyID, "action": "downgraded_to_free", "expired_tier": from,
			"restrictions_applied": tier.Restrictions(old, next.Limits, w.suspended()), "expiry_handled_at": stamp(d.At),
		}}}
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
	s.Currency, s.PreviousTier = change.Adjustment.Currency, ""
}

// stay takes back what was to happen at the period's end.
func (s *Subscription) stay() { s.PendingTier, s.CancelAtEnd = "", false }

// toFree puts a subscription on the free tier, with a period of its own.
func (r *Rules) toFree(next *Subscription, at time.Time, status string) {
	free, _ := r.catalogue.Tier(tier.Free)
	next.stay()
	next.Tier, next.PriceMinor, next.Limits, next.Benefits = free.Name, free.PriceMinor, free.Limits, free.Benefits
	next.PeriodStart, next.PeriodEnd, next.AnchorDay = at, tier.NextPeriodEnd(at, at.Day()), at.Day()
	next.Status, next.GraceUntil, next.PreviousTier = status, nil, ""
}

// changeTier has a changed subscription written, with all that follows from its tier.
func (r *Rules) changeTier(d *Decision, s *State, next *Subscription) (*Decision, error) {
	entry, _ := r.catalogue.Tier(next.Tier)
	config, err := withTier(s.Config, s.CompanyID, next.Tier, next.Limits, entry.SupportLevel)
	if err != nil {
		return nil, err
	}
	d.Subscription, d.Seat = next, true
	// Postgres writes the same object in another way.
	before, err := object(s.Config)
	if err != nil {
		return nil, err
	}
	same, err := marshal(before)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(config, same) {
		d.Config = config
	}
	return d, nil
}

// note names the effect for the history and the audit.
func (d *Decision) note(action string, details map[string]any) { d.Action, d.Details = action, details }

// charge records the money of a change, with the payment that is to cover it.
func (d *Decision) charge(kind, from, to string, money tier.Adjustment, named *events.Payment, known *Payment) {
	d.Transaction = &Transaction{Type: kind, OldTier: from, NewTier: to, Adjustment: money}
	if named == nil {
		return
	}
	d.Transaction.Payment = named.All
	d.Payment = expectedPayment(named, known, money.AmountMinor, money.Currency)
}

// refused turns a refusal of the catalogue into a decision.
func (d *Decision) refused(err error) (*Decision, error) {
	var refusal *tier.Refusal
	if errors.As(err, &refusal) {
		return d.refuse(refusal.Code, "%s", refusal.Message), nil
	}
	return nil, err
}
