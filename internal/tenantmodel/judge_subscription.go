package tenantmodel

import (
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
)

// free puts a company on the free tier, from a time on.
func (c *company) free(p plan, at time.Time, status string) {
	c.sub = subscription{plan: p, status: status, start: at, end: monthAfter(at, at.Day()), day: at.Day()}
}

// due is when the subscription changes by itself.
func (s *subscription) due() (time.Time, bool) {
	switch {
	case s.status == "cancelled" || s.status == "expired":
		return time.Time{}, false
	case s.pending != "":
		if s.status == pastDue && s.grace.Before(s.end) {
			return s.grace, true
		}
		return s.end, true
	}
	return s.over(), s.status == pastDue || s.plan.price > 0
}

// over is when the subscription ends if nobody pays.
func (s *subscription) over() time.Time {
	if s.status == pastDue {
		return s.grace
	}
	return s.end
}

// settle does what is due at a time.
func (j *judge) settle(c *company, at time.Time, phase int) {
	for {
		due, ends := c.sub.due()
		if c.status != active || !ends || due.After(at) {
			return
		}
		what := "expiry"
		if c.sub.pending != "" && due.Equal(c.sub.end) {
			what = "period_end"
		}
		e := &event{topic: events.TopicSubscription, company: c.id, source: "/tenantflow/subscription",
			id: fmt.Sprintf("%s:%s:%s", what, c.id, due.Format(time.RFC3339Nano)), at: due, phase: phase}
		j.world.Inbox[e.identity()] = "done"
		switch {
		case what == "expiry":
			j.expire(e, c)
		case c.sub.cancelling:
			j.endCancelled(e, c)
		default:
			j.fallAtEnd(e, c)
		}
	}
}

// subscription judges an event of subscription.events.
func (j *judge) subscription(e *event, c *company) string {
	switch e.kind {
	case events.TypeUpgradeRequested:
		return j.upgrade(e, c)
	case events.TypeDowngradeRequested:
		return j.downgrade(e, c)
	case events.TypeCancelRequested:
		return j.cancel(e, c)
	case events.TypeRenewed:
		return j.renew(e, c)
	case events.TypeExpired:
		return j.expired(e, c)
	case events.TypePaymentReceived:
		return j.received(e, c)
	default:
		return j.failed(e, c)
	}
}

func (j *judge) upgrade(e *event, c *company) string {
	s := &c.sub
	if expected := e.text("expected_tier"); expected != "" && expected != s.plan.name {
		return "tier_changed"
	}
	to, ok := j.plans[e.text("new_tier")]
	switch {
	case !ok:
		return "unknown_tier"
	case to.rank <= s.plan.rank:
		return "invalid_upgrade_path"
	case j.taken(e, c):
		return "duplicate_payment"
	}
	at, from := c.now(e.at), *s
	var lines []int64
	if from.plan.price == 0 {
		*s = subscription{plan: to, status: active, start: at, end: monthAfter(at, at.Day()), day: at.Day()}
		lines = []int64{to.price}
	} else {
		s.plan, s.pending, s.cancelling = to, "", false
		credit := -portion(from.plan.price, s.start, s.end, at)
		lines = []int64{credit, portion(to.price-from.plan.price, s.start, s.end, at) - credit}
	}
	t := j.charge(e, c, "upgrade", from.plan.name, lines)
	j.tell(e, events.TopicSubscriptionResults, events.TypeUpgraded, 0, map[string]any{"upgraded_from": from.plan.name, "upgraded_to": to.name,
		"effective_date": stamp(at), "transaction_id": e.result("transaction", 0), "billing_adjustment": t.adjustment()})
	j.configured(e)
	return ""
}

func (j *judge) downgrade(e *event, c *company) string {
	s := &c.sub
	to, ok := j.plans[e.text("new_tier")]
	switch {
	case !ok:
		return "unknown_tier"
	case to.rank >= s.plan.rank:
		return "invalid_downgrade_path"
	}
	at := c.now(e.at)
	if e.text("effective") != "immediate" {
		s.pending, s.cancelling = to.name, false
		j.tell(e, events.TopicSubscriptionResults, events.TypeDowngradeScheduled, 0, map[string]any{"current_tier": s.plan.name, "new_tier": to.name, "effective_date": stamp(s.end)})
		return ""
	}
	from, lines := s.plan, []int64{}
	if to.price == 0 {
		c.free(to, at, active)
	} else {
		s.plan, s.pending, s.cancelling = to, "", false
		credit := -portion(from.price, s.start, s.end, at)
		lines = []int64{credit, portion(to.price-from.price, s.start, s.end, at) - credit}
	}
	j.fallen(e, c, from, at, lines)
	return ""
}

// fallAtEnd is a downgrade for which the period's end has come.
func (j *judge) fallAtEnd(e *event, c *company) {
	s := &c.sub
	from, to, lines := s.plan, j.plans[s.pending], []int64{}
	c.now(e.at)
	if to.price == 0 {
		c.free(to, e.at, active)
	} else {
		s.plan, s.pending = to, ""
		s.start, s.end = s.end, monthAfter(s.end, s.day)
		lines = []int64{to.price}
	}
	j.fallen(e, c, from, e.at, lines)
}

// fallen tells of a downgrade that was made.
func (j *judge) fallen(e *event, c *company, from plan, at time.Time, lines []int64) {
	t := j.charge(e, c, "downgrade", from.name, lines)
	j.tell(e, events.TopicSubscriptionResults, events.TypeDowngraded, 0, map[string]any{"downgraded_from": from.name, "downgraded_to": c.sub.plan.name,
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

func (j *judge) cancel(e *event, c *company) string {
	s := &c.sub
	if s.plan.rank == 0 {
		return "invalid_downgrade_path"
	}
	at := c.now(e.at)
	if e.text("effective") == "immediate" {
		e := *e
		e.at = at
		j.endCancelled(&e, c)
		return ""
	}
	s.pending, s.cancelling = "free", true
	j.tell(e, events.TopicSubscriptionResults, events.TypeCancellationScheduled, 0, map[string]any{"effective_date": stamp(s.end)})
	return ""
}

func (j *judge) endCancelled(e *event, c *company) {
	from := c.sub.plan.name
	c.free(j.plans["free"], c.now(e.at), "cancelled")
	j.tell(e, events.TopicSubscriptionResults, events.TypeCancelled, 0, map[string]any{"cancelled_tier": from, "effective_date": stamp(c.last), "restrictions_applied": j.restrictions(c)})
	j.configured(e)
}

func (j *judge) renew(e *event, c *company) string {
	s := &c.sub
	start, end := e.moment("period_start"), e.moment("period_end")
	same := start.Equal(s.start) && end.Equal(s.end)
	late := s.status == "expired" && s.previous != ""
	switch {
	case !end.After(start), end.Sub(start) > 366*24*time.Hour, !late && !same && (!end.After(s.end) || start.Before(s.start)):
		return "invalid_period"
	case j.taken(e, c):
		return "duplicate_payment"
	}
	c.now(e.at)
	from, to := s.plan, s.plan
	switch {
	case late:
		to = j.plans[s.previous]
	case s.pending != "" && !s.cancelling && !same:
		to = j.plans[s.pending]
	}
	day := s.day
	switch {
	case same:
	case end.AddDate(0, 0, 1).Day() == 1: // the last day of its month, which may stand for a later one
		day = max(day, start.Day(), end.Day())
	default:
		day = end.Day()
	}
	*s = subscription{plan: to, status: active, start: start, end: end, day: day}
	data := map[string]any{"tier": to.name, "period_start": stamp(start), "period_end": stamp(end)}
	if !same {
		j.charge(e, c, "renewal", from.name, []int64{to.price})
		data["transaction_id"] = e.result("transaction", 0)
	} else if id := e.payment(); id != "" {
		if _, known := j.world.Payments[id]; !known {
			j.world.Payments[id] = Payment{CompanyID: c.id, Status: "pending"}
		}
	}
	j.tell(e, events.TopicSubscriptionResults, events.TypeRenewalRecorded, 0, data)
	if from.name != to.name {
		j.configured(e)
	}
	return ""
}

// expiredAt is when a subscription is said to be over.
func (e *event) expiredAt() time.Time {
	if e.data["expired_at"] != nil {
		return e.moment("expired_at")
	}
	return e.at
}

// toldBy is whether an event says that the subscription is over when it is.
func (s *subscription) toldBy(e *event) bool {
	endsAtOnce := s.pending == "" || s.over().Before(s.end)
	return e.kind == events.TypeExpired && endsAtOnce && !e.expiredAt().Before(s.over())
}

func (j *judge) expired(e *event, c *company) string {
	if c.sub.plan.price == 0 || e.expiredAt().Before(c.sub.over()) {
		return "not_expired"
	}
	dated := *e
	if over := c.sub.over(); over.Before(e.at) {
		dated.at = over
	}
	j.expire(&dated, c)
	return ""
}

// expire ends a subscription that nobody has paid for.
func (j *judge) expire(e *event, c *company) {
	from := c.sub.plan.name
	c.free(j.plans["free"], c.now(e.at), "expired")
	c.sub.previous = from
	j.tell(e, events.TopicSubscriptionResults, events.TypeExpiryHandled, 0, map[string]any{"action": "downgraded_to_free", "expiry_handled_at": stamp(c.last), "restrictions_applied": j.restrictions(c)})
	var users []string
	for _, m := range c.users {
		users = append(users, m.id)
	}
	slices.Sort(users)
	for n, user := range users {
		j.tell(e, events.TopicNotifications, events.TypeNotificationRequested, n, map[string]any{"user_id": user, "template": "subscription_expired"})
	}
	j.configured(e)
}
