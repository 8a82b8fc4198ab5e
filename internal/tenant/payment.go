package tenant

import (
	"time"

	"tenantflow/events"
)

// paymentTaken reports whether a payment that an upgrade or a renewal names covers something else already. A renewal may name the one
// of its own period again, and whatever has failed may be used again.
func (s *State) paymentTaken(named *events.Payment, period *time.Time) bool {
	known := s.Payment
	switch {
	case named == nil || known == nil:
		return false
	case known.CompanyID != s.CompanyID:
		return true
	case known.Status == PaymentFailed:
		return false
	case period != nil && known.PeriodStart != nil && known.PeriodStart.Equal(*period):
		return false
	}
	return known.TransactionID != "" || known.PeriodStart != nil
}

// pay records which payment is to cover a period: what is known of it, or that it is awaited. The writer adds the company and the
// transaction.
func (d *Decision) pay(s *State, named *events.Payment, period time.Time) {
	if named == nil {
		return
	}
	payment := &Payment{PaymentID: named.PaymentID, Currency: s.Company.Currency, Method: named.Method, Status: PaymentPending}
	if s.Payment != nil {
		*payment = *s.Payment
	}
	if payment.Status == PaymentFailed { // it is tried again, and maybe for another period
		payment.Status, payment.Reason = PaymentPending, ""
		if payment.PeriodStart == nil || !payment.PeriodStart.Equal(period) {
			payment.TransactionID = ""
		}
	}
	if d.Transaction != nil {
		d.Transaction.Payment = named.All
		if s.Payment == nil {
			payment.AmountMinor = &d.Transaction.Adjustment.AmountMinor
		}
	}
	payment.PeriodStart = &period
	d.Payment = payment
}

// settle ends the grace period of a failed payment if the payment that an upgrade or a renewal of the present period names, and that was
// received before, makes it good. charge is what the period costs more by this event.
func (r *Rules) settle(d *Decision, s *State, next *Subscription, named *events.Payment, charge int64) {
	known := s.Payment
	if named == nil || known == nil || known.Status != PaymentReceived || known.PeriodStart != nil || known.AmountMinor == nil {
		return
	}
	if next.Status == StatusPastDue && s.Books.Received+*known.AmountMinor >= s.Books.Charged+charge {
		next.Failed = false
		r.paid(d, next)
	}
}

// receivePayment records money that has come. What belongs to an outstanding period counts for it.
func (r *Rules) receivePayment(d *Decision, s *State, next *Subscription, sent time.Time, p *events.PaymentReceived) (*Decision, error) {
	known := s.Payment
	switch {
	case p.AmountMinor <= 0:
		return d.refuse(InvalidAmount, "a payment of %d is none", p.AmountMinor), nil
	case p.Currency != s.Company.Currency:
		return d.refuse(CurrencyMismatch, "the payment is in %q, the company pays in %s", p.Currency, s.Company.Currency), nil
	case known != nil && (known.CompanyID != s.CompanyID || known.Status == PaymentReceived):
		return d.refuse(DuplicatePayment, "the payment %s is recorded already", p.PaymentID), nil
	}
	paidAt := p.PaidAt.UTC().Truncate(time.Microsecond)
	amount := p.AmountMinor
	payment := &Payment{PaymentID: p.PaymentID, AmountMinor: &amount, Currency: p.Currency, PaidAt: &paidAt, Method: p.Method,
		Status: PaymentReceived, BillingPeriod: p.BillingPeriod}
	if known != nil {
		payment.TransactionID, payment.PeriodStart = known.TransactionID, known.PeriodStart
		if payment.Method == "" {
			payment.Method = known.Method
		}
	}
	d.Payment = payment
	period := &next.Term
	if next.Expired != nil {
		period = next.Expired
	}
	if payment.PeriodStart == nil && period.paid() && p.BillingPeriod == monthOf(period.PeriodStart) {
		payment.PeriodStart = &period.PeriodStart
	}
	belongs := period.paid() && payment.PeriodStart != nil && payment.PeriodStart.Equal(period.PeriodStart)
	reinstated := false
	if belongs && s.Books.Received+amount >= s.Books.Charged {
		switch {
		case next.Status == StatusPastDue:
			next.Failed = false
			r.paid(d, next)
		case period == next.Expired && period.GraceUntil != nil && sent.Before(*period.GraceUntil):
			r.reinstate(d, next)
			next.Failed, reinstated = false, true
			if err := r.changeTier(d, s, next); err != nil {
				return nil, err
			}
		}
	}
	details := map[string]any{"payment_id": p.PaymentID, "amount_minor": p.AmountMinor, "currency": p.Currency}
	if reinstated { // what the company pays a month from now on can't be told from the payment
		details["reinstated"], details["tier"], details["price_minor"] = true, next.Tier, next.PriceMinor
	}
	d.note("subscription.payment_recorded", details)
	d.Outputs = func(w Written) []Output {
		data := map[string]any{"company_id": s.CompanyID, "payment_id": p.PaymentID, "amount_minor": p.AmountMinor, "currency": p.Currency,
			"paid_at": stamp(paidAt), "status": next.Status, "reinstated": reinstated}
		if payment.TransactionID != "" {
			data["transaction_id"] = payment.TransactionID
		}
		if payment.PeriodStart != nil {
			data["period_start"] = stamp(*payment.PeriodStart)
		}
		return append([]Output{{Topic: events.TopicSubscriptionResults, Type: events.TypePaymentRecorded, Data: data}}, s.configChanged(w)...)
	}
	return d, nil
}

// monthOf is the month that a period's charge belongs to, as a billing_period.
func monthOf(start time.Time) string { return start.UTC().Format("2006-01") }

// failPayment records money that has not come. If it is wanting in the present period, the grace period begins.
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
	belongs := payment.PeriodStart != nil && payment.PeriodStart.Equal(next.PeriodStart)
	first := payment.PeriodStart == nil && !next.Failed
	if next.paid() && next.Status == StatusActive && s.Books.Received < s.Books.Charged && (belongs || first) {
		next.fail(d.At)
		d.Subscription = next
		start := next.PeriodStart
		payment.PeriodStart = &start // so that the attempt that succeeds belongs to it
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
