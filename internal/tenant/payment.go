package tenant

import (
	"time"

	"tenantflow/events"
)

// paymentTaken tells whether a payment that an upgrade or a renewal names covers something else already.
func (s *State) paymentTaken(named *events.Payment) bool {
	known := s.Payment
	return named != nil && known != nil &&
		(known.CompanyID != s.CompanyID || known.TransactionID != "" || known.Status == PaymentFailed)
}

// expectedPayment is the row of a payment that is to cover an amount: what is known of it, or that it is awaited. The writer
// adds the company and the transaction.
func expectedPayment(named *events.Payment, known *Payment, amount int64, currency string) *Payment {
	if known != nil {
		linked := *known
		return &linked
	}
	return &Payment{PaymentID: named.PaymentID, AmountMinor: &amount, Currency: currency, Method: named.Method, Status: PaymentPending}
}

// namedPayment is the row of a payment that comes with something that costs nothing more.
func namedPayment(s *State, named *events.Payment, known *Payment) *Payment {
	if known != nil {
		return nil
	}
	return &Payment{PaymentID: named.PaymentID, CompanyID: s.CompanyID, Method: named.Method, Status: PaymentPending}
}

// receivePayment records money that has come.
func (r *Rules) receivePayment(d *Decision, s *State, next *Subscription, p *events.PaymentReceived) *Decision {
	known := s.Payment
	switch {
	case p.AmountMinor <= 0:
		return d.refuse(InvalidAmount, "a payment of %d is none", p.AmountMinor)
	case p.Currency != s.Company.Currency:
		return d.refuse(CurrencyMismatch, "the payment is in %q, the company pays in %s", p.Currency, s.Company.Currency)
	case known != nil && (known.CompanyID != s.CompanyID || known.Status == PaymentReceived):
		return d.refuse(DuplicatePayment, "the payment %s is recorded already", p.PaymentID)
	}
	paid := p.PaidAt.UTC().Truncate(time.Microsecond)
	amount := p.AmountMinor
	payment := &Payment{PaymentID: p.PaymentID, AmountMinor: &amount, Currency: p.Currency, PaidAt: &paid, Method: p.Method,
		Status: PaymentReceived, BillingPeriod: p.BillingPeriod}
	if known != nil {
		payment.TransactionID = known.TransactionID
		if payment.Method == "" {
			payment.Method = known.Method
		}
	}
	d.Payment = payment
	// When the period is over, only a renewal says what was paid for. Until it comes, the time of grace goes on: an active
	// subscription would expire at once.
	if next.Status == StatusPastDue && next.PeriodEnd.After(d.At) {
		next.Status, next.GraceUntil = StatusActive, nil
		d.Subscription = next
	}
	d.note("subscription.payment_recorded", map[string]any{"payment_id": p.PaymentID, "amount_minor": p.AmountMinor, "currency": p.Currency})
	d.Outputs = func(Written) []Output {
		data := map[string]any{"company_id": s.CompanyID, "payment_id": p.PaymentID, "amount_minor": p.AmountMinor, "currency": p.Currency,
			"paid_at": stamp(paid), "status": next.Status}
		if payment.TransactionID != "" {
			data["transaction_id"] = payment.TransactionID
		}
		return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypePaymentRecorded, Data: data}}
	}
	return d
}

// failPayment records money that has not come, and begins the time of grace.
func (r *Rules) failPayment(d *Decision, s *State, next *Subscription, p *events.PaymentFailed) *Decision {
	payment := &Payment{PaymentID: p.PaymentID}
	if known := s.Payment; known != nil {
		if known.CompanyID != s.CompanyID || known.Status == PaymentReceived {
			return d.refuse(DuplicatePayment, "the payment %s is recorded already", p.PaymentID)
		}
		*payment = *known
	}
	payment.Status, payment.Reason = PaymentFailed, p.Reason
	d.Payment = payment
	if next.PriceMinor > 0 && next.Status == StatusActive {
		until := d.At.Add(Grace)
		next.Status, next.GraceUntil = StatusPastDue, &until
		d.Subscription = next
	}
	d.note("subscription.payment_failed", map[string]any{"payment_id": p.PaymentID})
	d.Outputs = func(Written) []Output {
		data := map[string]any{"company_id": s.CompanyID, "payment_id": p.PaymentID, "status": next.Status}
		if next.GraceUntil != nil {
			data["grace_until"] = stamp(*next.GraceUntil)
		}
		return []Output{{Topic: events.TopicSubscriptionResults, Type: events.TypePaymentFailureRecorded, Data: data}}
	}
	return d
}
