package tenantmodel

import (
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/generate"
)

// free puts a company on the free tier, from a time on.
func (c *company) free(p plan, at time.Time, status string) {
	c.sub = subscription{plan: p, status: status, start: at, end: generate.MonthAfter(at, at.Day()), months: 1, day: at.Day()}
}

// begin has a paid period begin.
func (s *subscription) begin(p plan, start, end time.Time, months, day int) {
	*s = subscription{plan: p, status: active, start: start, end: end, months: months, day: day, patience: end.Add(patience)}
}

// expected is the row that must be in the table.
func (s *subscription) expected() Subscription {
	row := Subscription{Tier: s.plan.name, Status: s.status, PeriodStart: s.start, PeriodEnd: s.end, Months: s.months, PriceMinor: s.plan.price, Currency: currency,
		PendingTier: s.pending, PendingAt: s.pendingAt, CancelAtPeriodEnd: s.cancelling, GraceUntil: s.grace, RenewalUntil: s.patience}
	if s.ahead != nil {
		row.NextStart, row.NextEnd = s.ahead.start, s.ahead.end
	}
	if s.ended != nil {
		row.PreviousTier = s.ended.plan.name
	}
	return row
}

// A deadline is something that is due.
type deadline struct {
	kind string
	at   time.Time
}

// deadlines are what is due, the first first.
func (s *subscription) deadlines() []deadline {
	all := []deadline{{"period_end", s.pendingAt}, {"renewal", time.Time{}}, {"payment_grace", s.grace}, {"renewal_grace", s.patience}}
	if s.ahead != nil {
		all[1].at = s.ahead.start
		if s.ahead.lower != "" {
			all = slices.Insert(all, 0, deadline{"period_end", s.ahead.start})
		}
	}
	all = slices.DeleteFunc(all, func(d deadline) bool { return d.at.IsZero() })
	slices.SortStableFunc(all, func(a, b deadline) int { return a.at.Compare(b.at) })
	return all
}

// settle does what is due at a time. before is the event that has to wait for it; nil: none.
func (j *judge) settle(c *company, at time.Time, before *Event) {
	for !c.shut {
		all := c.sub.deadlines()
		if len(all) == 0 || all[0].at.After(at) {
			return
		}
		j.meet(c, all[0], before)
	}
}

// due does what an event of the schedule names, and what comes before that, if it still is due.
func (j *judge) due(c *company, e *Event) {
	named := deadline{text(e, "kind"), moment(e, "due_at")}
	if named.kind == "closing" {
		j.closing(c, named, e)
		return
	}
	if e.Appended.Before(named.at) {
		return
	}
	for slices.ContainsFunc(c.sub.deadlines(), func(d deadline) bool { return d.kind == named.kind && d.at.Equal(named.at) }) {
		j.meet(c, c.sub.deadlines()[0], e)
	}
}

// meet does one thing that is due.
func (j *judge) meet(c *company, d deadline, before *Event) {
	e := &Event{Topic: events.TopicSubscription, Company: c.id, Source: "/tenantflow/schedule", ID: fmt.Sprintf("due:%s:%s:%s", c.id, d.kind, stamp(d.at)), Time: d.at}
	if before != nil {
		e.Phase = before.Phase
	}
	if d.kind == "closing" {
		j.settle(c, later(d.at, c.last), e)
	}
	j.world.Inbox[identity(e)] = "done"
	switch {
	case d.kind == "closing":
		if c.final {
			c.now(d.at)
		}
		j.withdrawn(e, c, c.drop())
		c.shut = true
	case d.kind == "renewal":
		j.beginAhead(e, c)
	case d.kind != "period_end":
		j.expire(e, c)
	case c.sub.cancelling && d.at.Equal(c.sub.pendingAt):
		j.endCancelled(e, c)
	default:
		j.fallAtEnd(e, c)
	}
}

// subscription judges an event of subscription.events.
func (j *judge) subscription(e *Event, c *company) string {
	switch e.Type {
	case events.TypeUpgradeRequested:
		return j.upgrade(e, c)
	case events.TypeDowngradeRequested:
		return j.downgrade(e, c)
	case events.TypeCancelRequested:
		return j.cancel(e, c)
	case events.TypeRenewed:
		return j.renew(e, c)
	case events.TypeChangeWithdrawn:
		return j.withdraw(e, c)
	case events.TypeExpired:
		return j.expired(e, c)
	case events.TypePaymentReceived:
		return j.received(e, c)
	default:
		return j.failed(e, c)
	}
}

func (j *judge) upgrade(e *Event, c *company) string {
	s := &c.sub
	if expected := text(e, "expected_tier"); expected != "" && expected != s.plan.name {
		return "tier_changed"
	}
	to, ok := j.plans[text(e, "new_tier")]
	switch {
	case !ok:
		return "unknown_tier"
	case to.rank <= s.plan.rank:
		return "invalid_upgrade_path"
	case j.taken(e, c, time.Time{}):
		return "duplicate_payment"
	}
	at, from := c.now(e.Time), *s
	var lines []int64
	dropped := (*renewal)(nil)
	if from.plan.price == 0 {
		dropped = c.drop()
		s.begin(to, at, generate.MonthAfter(at, at.Day()), 1, at.Day())
		lines = []int64{to.price}
		if _, tiers := j.bill(c, s); slices.Contains(tiers, to.name) {
			lines = []int64{0} // it was left at the moment at which it started
		}
		j.adopt(c)
	} else {
		lines = j.prorated(c, to, at)
		s.plan = to
		s.stay()
	}
	p, known := j.world.Payments[payment(e)]
	t := j.charge(e, c, "upgrade", from.plan.name, payment(e), lines)
	if known && p.Status == "received" && p.PeriodStart.IsZero() && s.status == pastDue && j.owed(c, s) <= 0 {
		s.clear(at)
	}
	j.result(e, events.TopicSubscriptionResults, events.TypeUpgraded, 0, map[string]any{"upgraded_from": from.plan.name, "upgraded_to": to.name,
		"effective_date": stamp(at), "transaction_id": result(e, "transaction", 0), "billing_adjustment": t.adjustment()})
	j.withdrawn(e, c, dropped)
	j.configured(e)
	return ""
}

// stay takes back what is pending.
func (s *subscription) stay() {
	s.pending, s.pendingAt, s.cancelling = "", time.Time{}, false
	s.startWith("")
}

// startWith has the recorded period start with a lower plan; empty: with the one that is held.
func (s *subscription) startWith(lower string) {
	if s.ahead != nil {
		next := *s.ahead
		next.lower, s.ahead = lower, &next
	}
}

// lowered is the plan that the recorded period starts with, where that is a lower one that is paid for.
func (s *subscription) lowered() string {
	switch {
	case s.ahead == nil:
		return ""
	case s.ahead.lower == "" && s.pendingAt.Equal(s.end) && s.pending != "free":
		return s.pending
	}
	return s.ahead.lower
}

// leave schedules a tier for the end of the last period that is recorded.
func (s *subscription) leave(to string, cancelling bool) {
	s.startWith(s.lowered())
	s.pending, s.pendingAt, s.cancelling = to, s.end, cancelling
	if s.ahead != nil {
		s.pendingAt = s.ahead.end
	}
}

// drop takes back the period that is recorded ahead.
func (c *company) drop() *renewal {
	dropped := c.sub.ahead
	c.sub.ahead = nil
	return dropped
}

// withdrawn says that a period will not begin. What was to pay for it is free again.
func (j *judge) withdrawn(e *Event, c *company, dropped *renewal) {
	if dropped == nil {
		return
	}
	for id, p := range j.world.Payments {
		if p.CompanyID == c.id && p.TransactionID == "" && p.PeriodStart.Equal(dropped.start) {
			p.PeriodStart = time.Time{}
			j.world.Payments[id] = p
		}
	}
	j.result(e, events.TopicSubscriptionResults, events.TypeChangeWithdrawn, 0, map[string]any{"change": "renewal", "period_start": stamp(dropped.start), "period_end": stamp(dropped.end)})
}

// adopt has the payments that came for the month of a period, before it began, belong to it.
func (j *judge) adopt(c *company) {
	for id, p := range j.world.Payments {
		if p.CompanyID == c.id && p.Status == "received" && p.PeriodStart.IsZero() && p.month == c.sub.start.Format("2006-01") {
			p.PeriodStart = c.sub.start
			j.world.Payments[id] = p
		}
	}
}

func (j *judge) downgrade(e *Event, c *company) string {
	s := &c.sub
	to, ok := j.plans[text(e, "new_tier")]
	held := s.plan
	if then := s.lowered(); then != "" && text(e, "effective") != "immediate" {
		held = j.plans[then]
	}
	switch {
	case !ok:
		return "unknown_tier"
	case to.rank >= held.rank:
		return "invalid_downgrade_path"
	}
	at := c.now(e.Time)
	if text(e, "effective") != "immediate" {
		s.leave(to.name, false)
		if !s.pendingAt.After(at) { // the period is over and not renewed
			j.fallAtEnd(e, c)
			return ""
		}
		j.result(e, events.TopicSubscriptionResults, events.TypeDowngradeScheduled, 0, map[string]any{"current_tier": s.plan.name, "new_tier": to.name, "effective_date": stamp(s.pendingAt)})
		return ""
	}
	from, lines, dropped := s.plan, []int64{}, (*renewal)(nil)
	if to.price == 0 {
		dropped = c.drop()
		c.free(to, at, active)
	} else {
		lines = j.prorated(c, to, at)
		s.plan = to
		s.stay()
	}
	j.fallen(e, c, from, at, lines)
	j.withdrawn(e, c, dropped)
	return ""
}

// fallAtEnd is a downgrade for which the period's end has come.
func (j *judge) fallAtEnd(e *Event, c *company) {
	s := &c.sub
	from, to, lines, dropped := s.plan, j.plans[s.pending], []int64{}, (*renewal)(nil)
	at := c.now(e.Time)
	switch {
	case s.ahead != nil && s.ahead.lower != "": // what is pending comes later
		s.plan = j.plans[s.ahead.lower]
		s.startWith("")
	case to.price == 0:
		dropped = c.drop()
		c.free(to, at, active)
	case s.ahead != nil: // which is the period, and is charged
		s.plan = to
		s.stay()
	default:
		s.begin(to, s.end, generate.MonthAfter(s.end, s.day), 1, s.day)
		lines = []int64{to.price}
		j.adopt(c)
	}
	j.fallen(e, c, from, at, lines)
	j.withdrawn(e, c, dropped)
}

// fallen reports a downgrade that was made.
func (j *judge) fallen(e *Event, c *company, from plan, at time.Time, lines []int64) {
	t := j.charge(e, c, "downgrade", from.name, "", lines)
	j.result(e, events.TopicSubscriptionResults, events.TypeDowngraded, 0, map[string]any{"downgraded_from": from.name, "downgraded_to": c.sub.plan.name,
		"effective_date": stamp(at), "billing_adjustment": t.adjustment(), "restrictions_applied": j.restrictions(c)})
	j.configured(e)
}

// restrictions are the users who have lost their place. The limits are the catalogue's and are not judged here.
func (j *judge) restrictions(c *company) map[string]any {
	if out := c.suspended(); len(out) > 0 {
		return map[string]any{"users_suspended": map[string]any{"new": out}}
	}
	return map[string]any{}
}

func (j *judge) cancel(e *Event, c *company) string {
	s := &c.sub
	if s.plan.rank == 0 {
		return "invalid_downgrade_path"
	}
	at := c.now(e.Time)
	if text(e, "effective") != "immediate" {
		if s.leave("free", true); s.pendingAt.After(at) {
			j.result(e, events.TopicSubscriptionResults, events.TypeCancellationScheduled, 0, map[string]any{"effective_date": stamp(s.pendingAt)})
			return ""
		}
	}
	j.endCancelled(e, c)
	return ""
}

func (j *judge) endCancelled(e *Event, c *company) {
	from, dropped := c.sub.plan.name, c.drop()
	c.free(j.plans["free"], c.now(e.Time), "cancelled")
	j.result(e, events.TopicSubscriptionResults, events.TypeCancelled, 0, map[string]any{"cancelled_tier": from, "effective_date": stamp(c.last), "restrictions_applied": j.restrictions(c)})
	j.withdrawn(e, c, dropped)
	j.configured(e)
}

func (j *judge) withdraw(e *Event, c *company) string {
	s := &c.sub
	if s.pendingAt.IsZero() {
		return "nothing_scheduled"
	}
	c.now(e.Time)
	change := "downgrade"
	if s.cancelling {
		change = "cancellation"
	}
	j.result(e, events.TopicSubscriptionResults, events.TypeChangeWithdrawn, 0, map[string]any{"change": change, "effective_date": stamp(s.pendingAt)})
	lower := ""
	if s.ahead != nil {
		lower = s.ahead.lower
	}
	if s.stay(); lower != "" { // which was pending before
		s.pending, s.pendingAt = lower, s.end
	}
	return ""
}

// renew judges in this order: is there something that could go on, is it the same period again, does the company leave, the period,
// the payment.
func (j *judge) renew(e *Event, c *company) string {
	s := &c.sub
	start, end, at := moment(e, "period_start"), moment(e, "period_end"), later(e.Time, c.last)
	of := s
	if s.ended != nil {
		of = s.ended
	}
	if of.plan.price == 0 {
		return "nothing_to_renew"
	}
	again := start.Equal(of.start) && end.Equal(of.end)
	if !again {
		if s.cancelling || s.pending == "free" {
			return "nothing_to_renew"
		}
		months := wholeMonths(start, end, of.day)
		if months == 0 || !start.Equal(of.end) || !end.After(at) || s.ahead != nil && !s.ahead.end.Equal(end) {
			return "invalid_period"
		}
	} else if s.ended != nil && !end.After(at) {
		return "invalid_period"
	}
	if j.taken(e, c, start) {
		return "duplicate_payment"
	}
	c.now(e.Time)
	p, known := j.world.Payments[payment(e)]
	data := map[string]any{"tier": of.plan.name, "period_start": stamp(start), "period_end": stamp(end)}
	switch {
	case again && s.ended != nil:
		j.named(c, payment(e), start)
		ahead := s.ahead
		*s = *s.ended
		s.status, s.grace, s.patience, s.ahead = active, time.Time{}, end.Add(patience), ahead
		data["reinstated"] = true
		j.result(e, events.TopicSubscriptionResults, events.TypeRenewalRecorded, 0, data)
		j.configured(e)
	case again:
		j.named(c, payment(e), start)
		if known && p.Status == "received" && p.PeriodStart.IsZero() && s.status == pastDue && j.owed(c, s) <= 0 {
			s.clear(at)
		}
		j.result(e, events.TopicSubscriptionResults, events.TypeRenewalRecorded, 0, data)
	default:
		payment := payment(e)
		j.named(c, payment, start)
		lower := ""
		if s.ahead != nil {
			lower = s.ahead.lower
			if payment == "" {
				payment = s.ahead.payment
			}
		}
		s.ahead = &renewal{start, end, wholeMonths(start, end, of.day), payment, lower}
		if !start.After(at) {
			j.beginAhead(e, c)
			return ""
		}
		data["effective_date"], data["began"] = stamp(start), false
		j.result(e, events.TopicSubscriptionResults, events.TypeRenewalRecorded, 0, data)
	}
	return ""
}

// beginAhead begins the period that is recorded.
func (j *judge) beginAhead(e *Event, c *company) {
	c.now(e.Time)
	s, next := &c.sub, *c.sub.ahead
	from, held := s.plan, *s
	if s.ended != nil {
		held = *s.ended
		held.stay() // it was for the end of a period that is over
	}
	s.begin(held.plan, next.start, next.end, next.months, held.day)
	s.pending, s.pendingAt, s.cancelling = held.pending, held.pendingAt, held.cancelling
	j.adopt(c)
	t := j.charge(e, c, "renewal", from.name, next.payment, []int64{s.plan.price * int64(next.months)})
	if j.bounced(c) && j.owed(c, s) > 0 {
		s.overdue(s.start)
	}
	data := map[string]any{"tier": s.plan.name, "period_start": stamp(s.start), "period_end": stamp(s.end),
		"began": true, "transaction_id": result(e, "transaction", 0), "amount_minor": t.AmountMinor, "status": s.status}
	if s.status == pastDue {
		data["grace_until"] = stamp(s.grace)
	}
	j.result(e, events.TopicSubscriptionResults, events.TypeRenewalRecorded, 0, data)
	if from.name != s.plan.name {
		j.configured(e)
	}
}

func (j *judge) expired(e *Event, c *company) string {
	s := &c.sub
	if e.Data["expired_at"] != nil && moment(e, "expired_at").After(e.Time) {
		return "not_expired"
	}
	if s.ended != nil {
		c.now(e.Time)
		j.result(e, events.TopicSubscriptionResults, events.TypeExpiryHandled, 0, map[string]any{"action": "downgraded_to_free", "expired_tier": s.ended.plan.name, "already_expired": true})
		return ""
	}
	if s.plan.price == 0 || s.status != pastDue && s.end.After(later(e.Time, c.last)) {
		return "not_expired"
	}
	j.expire(e, c)
	return ""
}

// expire ends a subscription that was not renewed or not paid for.
func (j *judge) expire(e *Event, c *company) {
	dropped, ended := c.drop(), c.sub
	if ended.pending != "" { // should it come back, this is its last period
		ended.pendingAt = ended.end
	}
	c.free(j.plans["free"], c.now(e.Time), "expired")
	c.sub.ended = &ended
	j.result(e, events.TopicSubscriptionResults, events.TypeExpiryHandled, 0, map[string]any{"action": "downgraded_to_free", "expired_tier": ended.plan.name, "expired_at": stamp(c.last), "restrictions_applied": j.restrictions(c)})
	var users []string
	for _, m := range c.users {
		users = append(users, m.id)
	}
	slices.Sort(users)
	for n, user := range users {
		j.result(e, events.TopicNotifications, events.TypeNotificationRequested, n, map[string]any{"user_id": user, "template": "subscription_expired"})
	}
	j.withdrawn(e, c, dropped)
	j.configured(e)
}
