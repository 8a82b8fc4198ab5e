package tenantmodel

import (
	"slices"
	"time"

	"tenantflow/events"
)

// charge records the money of a change that has been made, and what is to pay for it.
func (j *judge) charge(e *Event, c *company, kind, from, payment string, lines []int64) Transaction {
	t := Transaction{CompanyID: c.id, Type: kind, OldTier: from, NewTier: c.sub.plan.name, Currency: currency, Lines: lines,
		PeriodStart: c.sub.start, PeriodEnd: c.sub.end, PaymentID: payment}
	for _, amount := range lines {
		t.AmountMinor += amount
	}
	id := result(e, "transaction", 0)
	j.world.Transactions[id] = t
	if payment != "" {
		if kind != "renewal" { // which has named it before
			j.named(c, payment, c.sub.start)
		}
		if p := j.world.Payments[payment]; p.PeriodStart.Equal(c.sub.start) {
			p.TransactionID = id
			j.world.Payments[payment] = p
		}
	}
	return t
}

// named has a payment belong to a period.
func (j *judge) named(c *company, id string, period time.Time) {
	if id == "" {
		return
	}
	p, known := j.world.Payments[id]
	switch {
	case !known:
		p = Payment{CompanyID: c.id, Status: "pending"}
	case p.Status == "failed": // it may be used again, for another period as well
		p.Status = "pending"
		if !p.PeriodStart.Equal(period) {
			p.TransactionID = ""
		}
	}
	p.PeriodStart = period
	j.world.Payments[id] = p
}

// adjustment is a transaction as events say it.
func (t *Transaction) adjustment() map[string]any {
	return map[string]any{"amount_minor": t.AmountMinor, "currency": t.Currency, "period_start": stamp(t.PeriodStart), "period_end": stamp(t.PeriodEnd)}
}

// taken reports whether the payment that an event names pays for something else.
func (j *judge) taken(e *Event, c *company, period time.Time) bool {
	p, known := j.world.Payments[payment(e)]
	if !known || p.CompanyID == c.id && p.Status == "failed" {
		return false
	}
	again := !period.IsZero() && p.PeriodStart.Equal(period)
	return p.CompanyID != c.id || !again && (p.TransactionID != "" || !p.PeriodStart.IsZero())
}

// bill adds up what a period was charged, and for which tiers.
func (j *judge) bill(c *company, s *subscription) (amount int64, tiers []string) {
	for _, t := range j.world.Transactions {
		if t.CompanyID == c.id && t.PeriodStart.Equal(s.start) && t.PeriodEnd.Equal(s.end) && t.AmountMinor > 0 {
			amount += t.AmountMinor
			tiers = append(tiers, t.NewTier)
		}
	}
	return amount, tiers
}

// owed is what is still to be paid of a period.
func (j *judge) owed(c *company, s *subscription) int64 {
	amount, _ := j.bill(c, s)
	for _, p := range j.world.Payments {
		if p.CompanyID == c.id && p.Status == "received" && p.PeriodStart.Equal(s.start) {
			amount -= p.AmountMinor
		}
	}
	return amount
}

// prorated are the lines of a move to another tier within the period. What was charged already is not charged again.
func (j *judge) prorated(c *company, to plan, at time.Time) []int64 {
	s := &c.sub
	whole := func(p plan) int64 { return p.price * int64(s.months) }
	credit := -portion(whole(s.plan), s.start, s.end, at)
	amount := portion(whole(to)-whole(s.plan), s.start, s.end, at)
	if _, tiers := j.bill(c, s); amount < 0 || slices.Contains(tiers, to.name) {
		amount = 0
	}
	return []int64{credit, amount - credit}
}

func (j *judge) received(e *Event, c *company) string {
	amount, _ := e.Data["amount_minor"].(int64)
	id := text(e, "payment_id")
	p, known := j.world.Payments[id]
	switch {
	case amount <= 0:
		return "invalid_amount"
	case text(e, "currency") != currency:
		return "currency_mismatch"
	case known && (p.CompanyID != c.id || p.Status == "received"):
		return "duplicate_payment"
	}
	at, s := c.now(e.Time), &c.sub
	if s.ended != nil {
		s = s.ended
	}
	month := text(e, "billing_period")
	if p.PeriodStart.IsZero() && s.plan.price > 0 && month == s.start.Format("2006-01") {
		p.PeriodStart = s.start
	}
	j.world.Payments[id] = Payment{CompanyID: c.id, Status: "received", AmountMinor: amount, Currency: currency, TransactionID: p.TransactionID,
		PeriodStart: p.PeriodStart, month: month}
	back := false
	if s.plan.price > 0 && p.PeriodStart.Equal(s.start) && j.owed(c, s) <= 0 {
		switch {
		case s.status == pastDue && s == &c.sub:
			s.clear(at)
		case s == c.sub.ended && e.Time.Before(s.grace):
			ahead := c.sub.ahead
			c.sub = *s
			c.sub.ahead, back = ahead, true
			c.sub.clear(at)
		}
	}
	j.result(e, events.TopicSubscriptionResults, events.TypePaymentRecorded, 0, map[string]any{"payment_id": id, "amount_minor": amount, "currency": currency, "status": c.sub.status})
	if back {
		j.configured(e)
	}
	return ""
}

// clear makes a period active that is paid. If it is over, a renewal is waited for from now on.
func (s *subscription) clear(at time.Time) {
	s.status, s.failed, s.grace, s.patience = active, false, time.Time{}, later(s.end, at).Add(patience)
}

// overdue makes a period one for which a payment has failed.
func (s *subscription) overdue(since time.Time) {
	s.status, s.grace, s.patience, s.failed = pastDue, since.Add(grace), time.Time{}, true
}

// bounced reports whether a payment of the company's period stands as failed.
func (j *judge) bounced(c *company) bool {
	for _, p := range j.world.Payments {
		if p.CompanyID == c.id && p.Status == "failed" && p.PeriodStart.Equal(c.sub.start) {
			return true
		}
	}
	return false
}

func (j *judge) failed(e *Event, c *company) string {
	id := text(e, "payment_id")
	p, known := j.world.Payments[id]
	if known && (p.CompanyID != c.id || p.Status == "received") {
		return "duplicate_payment"
	}
	at, s := c.now(e.Time), &c.sub
	p.CompanyID, p.Status = c.id, "failed"
	ours := p.PeriodStart.Equal(s.start) || p.PeriodStart.IsZero() && !s.failed
	if ours && s.plan.price > 0 && s.status == active && j.owed(c, s) > 0 {
		s.overdue(at)
		p.PeriodStart = s.start
	}
	j.world.Payments[id] = p
	data := map[string]any{"payment_id": id, "status": s.status}
	if s.status == pastDue {
		data["grace_until"] = stamp(s.grace)
	}
	j.result(e, events.TopicSubscriptionResults, events.TypePaymentFailureRecorded, 0, data)
	return ""
}
