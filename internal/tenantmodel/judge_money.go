package tenantmodel

import (
	"time"

	"tenantflow/events"
)

// charge records the money of a change that has been made, and what is to pay for it.
func (j *judge) charge(e *event, c *company, kind, from string, lines []int64) Transaction {
	t := Transaction{CompanyID: c.id, Type: kind, OldTier: from, NewTier: c.sub.plan.name, Currency: currency, Lines: lines,
		PeriodStart: c.sub.start, PeriodEnd: c.sub.end, PaymentID: e.payment()}
	for _, amount := range lines {
		t.AmountMinor += amount
	}
	id := e.result("transaction", 0)
	j.world.Transactions[id] = t
	if t.PaymentID != "" {
		p, known := j.world.Payments[t.PaymentID]
		if !known {
			p = Payment{CompanyID: c.id, Status: "pending"}
		}
		p.TransactionID = id
		j.world.Payments[t.PaymentID] = p
	}
	return t
}

// adjustment is a transaction as events tell it.
func (t *Transaction) adjustment() map[string]any {
	return map[string]any{"amount_minor": t.AmountMinor, "currency": t.Currency, "period_start": stamp(t.PeriodStart), "period_end": stamp(t.PeriodEnd)}
}

// taken tells whether the payment that an event names can't pay for it.
func (j *judge) taken(e *event, c *company) bool {
	p, known := j.world.Payments[e.payment()]
	return known && (p.CompanyID != c.id || p.Status != "received" || p.TransactionID != "")
}

func (j *judge) received(e *event, c *company) string {
	amount, _ := e.data["amount_minor"].(int64)
	id := e.text("payment_id")
	p, known := j.world.Payments[id]
	switch {
	case amount <= 0:
		return "invalid_amount"
	case e.text("currency") != currency:
		return "currency_mismatch"
	case known && (p.CompanyID != c.id || p.Status == "received"):
		return "duplicate_payment"
	}
	c.now(e.at)
	j.world.Payments[id] = Payment{CompanyID: c.id, Status: "received", AmountMinor: amount, Currency: currency, TransactionID: p.TransactionID}
	if c.sub.status == pastDue && c.last.Before(c.sub.end) {
		c.sub.status, c.sub.grace = active, time.Time{}
	}
	j.tell(e, events.TopicSubscriptionResults, events.TypePaymentRecorded, 0, map[string]any{"payment_id": id, "amount_minor": amount, "currency": currency})
	return ""
}

func (j *judge) failed(e *event, c *company) string {
	id := e.text("payment_id")
	p, known := j.world.Payments[id]
	if known && (p.CompanyID != c.id || p.Status == "received") {
		return "duplicate_payment"
	}
	at := c.now(e.at)
	j.world.Payments[id] = Payment{CompanyID: c.id, Status: "failed", TransactionID: p.TransactionID}
	if c.sub.plan.price > 0 && c.sub.status == active {
		c.sub.status, c.sub.grace = pastDue, at.Add(grace)
	}
	data := map[string]any{"payment_id": id}
	if c.sub.status == pastDue {
		data["status"], data["grace_until"] = pastDue, stamp(c.sub.grace)
	}
	j.tell(e, events.TopicSubscriptionResults, events.TypePaymentFailureRecorded, 0, data)
	return ""
}
