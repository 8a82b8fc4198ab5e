package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

// begin begins the transaction, takes the company's lock and reads what is needed, in one round trip. What the last statement
// reads is what there is once the lock is held.
func (x *tenantTx) begin(ctx context.Context) error {
	e := x.cause.Event
	user, payment, users := names(x.cause.Payload)
	batch := &pgx.Batch{}
	batch.Queue("BEGIN")
	x.lock(batch)
	batch.Queue(tenantLoadSQL, e.Key, e.Source, inboxID(x.cause), user, payment, users, ofSubscription(e.Type)).QueryRow(x.load)
	return x.conn.SendBatch(ctx, batch).Close()
}

// names gives the user and the payment that an event names, and whether the company's users matter to it.
func names(payload any) (user, payment string, users bool) {
	of := func(p *events.Payment) string {
		if p == nil {
			return ""
		}
		return p.PaymentID
	}
	switch p := payload.(type) {
	case *events.CompanyRegistered:
		return p.InitialUser.UserID, "", true
	case *events.UserAdded:
		return p.UserID, "", true
	case *events.UserRemoved:
		return p.UserID, "", true
	case *events.SchemaUpgradeRequested:
		return "", "", true
	case *events.UpgradeRequested:
		return "", of(p.Payment), false
	case *events.Renewed:
		return "", of(p.Payment), false
	case *events.PaymentReceived:
		return "", p.PaymentID, false
	case *events.PaymentFailed:
		return "", p.PaymentID, false
	}
	return "", "", false
}

// ofSubscription reports whether events of a type are those of subscription.events.
func ofSubscription(eventType string) bool { return consumerOf(eventType) == "subscription" }

// load reads the row of tenant_load.sql.
func (x *tenantTx) load(row pgx.Row) error {
	s := &x.state
	s.CompanyID = x.cause.Event.Key
	var known, subscribed, payment bool
	var c tenant.Company
	var sub tenant.Subscription
	var p tenant.Payment
	var created, start, end, effect, nextStart, nextEnd *time.Time
	var limits, benefits, renewal, expired []byte
	err := row.Scan(&known, &c.Name, &c.BillingEmail, &c.Currency, &c.Status, &created, &s.Config,
		&subscribed, &sub.Tier, &sub.Status, &start, &end, &sub.Months, &sub.PriceMinor,
		&sub.Currency, &sub.PendingTier, &sub.PendingAt, &sub.CancelAtEnd, &sub.GraceUntil,
		&sub.RenewalUntil, &nextStart, &nextEnd, &renewal, &sub.Failed, &expired,
		&sub.AnchorDay, &limits, &benefits, &sub.Partition,
		&s.Books.Charged, &s.Books.Tiers, &s.Books.Received,
		&effect, &x.last, &x.audit.seq, &x.audit.hash,
		&x.prior.state, &x.prior.fingerprint, &x.prior.seq, &x.prior.result, &x.prior.published, &s.Queue.Head,
		&s.UserOf, &s.Users,
		&payment, &p.CompanyID, &p.AmountMinor, &p.Currency, &p.PaidAt, &p.Method, &p.Status, &p.BillingPeriod, &p.TransactionID, &p.PeriodStart, &p.Reason,
		&s.SchemaVersion, &s.NewestSchema)
	if err != nil {
		return fmt.Errorf("read company %s: %w", s.CompanyID, err)
	}
	if effect != nil {
		s.LastEffect = *effect
	}
	if x.prior.state == inboxWaiting {
		s.Queue.Own = x.prior.seq
	}
	if known {
		c.CreatedAt = created.UTC()
		s.Company = &c
	}
	if payment {
		_, p.PaymentID, _ = names(x.cause.Payload)
		s.Payment = &p
	}
	if !subscribed {
		return nil
	}
	sub.PeriodStart, sub.PeriodEnd = start.UTC(), end.UTC()
	if renewal != nil {
		sub.Renewal = &tenant.Renewal{Start: nextStart.UTC(), End: nextEnd.UTC()}
	}
	s.Subscription = &sub
	return readTerms(s.CompanyID, &sub, limits, benefits, renewal, expired)
}

// readTerms reads the columns of a subscription that are JSON. A nil one is null.
func readTerms(company string, sub *tenant.Subscription, limits, benefits, renewal, expired []byte) (err error) {
	if sub.Limits, err = (limitsReader{}).read(limits); err != nil {
		return &stateError{err}
	}
	if err := json.Unmarshal(benefits, &sub.Benefits); err != nil {
		return &stateError{fmt.Errorf("read the benefits of company %s: %w", company, err)}
	}
	if renewal != nil {
		if err := json.Unmarshal(renewal, sub.Renewal); err != nil {
			return &stateError{fmt.Errorf("read the renewal of company %s: %w", company, err)}
		}
	}
	if expired != nil {
		sub.Expired = &tenant.Term{}
		if err := json.Unmarshal(expired, sub.Expired); err != nil {
			return &stateError{fmt.Errorf("read what company %s had before its expiry: %w", company, err)}
		}
	}
	return nil
}
