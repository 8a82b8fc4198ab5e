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
	batch.Queue(tenantLoadSQL, e.Key, e.Source, e.ID, user, payment, users).QueryRow(x.load)
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

// load reads the row of tenant_load.sql.
func (x *tenantTx) load(row pgx.Row) error {
	s := &x.state
	s.CompanyID = x.cause.Event.Key
	var known, subscribed, payment bool
	var c tenant.Company
	var sub tenant.Subscription
	var p tenant.Payment
	var created, start, end, effect *time.Time
	var limits, benefits []byte
	err := row.Scan(&known, &c.Name, &c.BillingEmail, &c.Currency, &c.Status, &created, &s.Config,
		&subscribed, &sub.Tier, &sub.Status, &start, &end, &sub.PriceMinor, &sub.Currency,
		&sub.PendingTier, &sub.CancelAtEnd, &sub.GraceUntil, &sub.PreviousTier, &sub.AnchorDay, &limits, &benefits, &sub.Partition, &sub.Due,
		&effect, &x.audit.seq, &x.audit.hash,
		&x.prior.state, &x.prior.fingerprint, &x.prior.seq, &x.prior.result, &x.prior.published, &x.firstWait,
		&s.UserOf, &s.Users,
		&payment, &p.CompanyID, &p.AmountMinor, &p.Currency, &p.PaidAt, &p.Method, &p.Status, &p.BillingPeriod, &p.TransactionID, &p.Reason,
		&s.SchemaVersion, &s.NewestSchema)
	if err != nil {
		return fmt.Errorf("read company %s: %w", s.CompanyID, err)
	}
	if effect != nil {
		s.LastEffect = *effect
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
	if sub.Limits, err = (limitsReader{}).read(limits); err != nil {
		return &stateError{err}
	}
	if err := json.Unmarshal(benefits, &sub.Benefits); err != nil {
		return &stateError{fmt.Errorf("read the benefits of company %s: %w", s.CompanyID, err)}
	}
	s.Subscription = &sub
	return nil
}
