package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

var (
	//go:embed queries/tenant_lock.sql
	tenantLockSQL string
	//go:embed queries/tenant_load.sql
	tenantLoadSQL string
	//go:embed queries/payment.sql
	paymentSQL string
)

// begin begins the transaction, takes the company's lock and reads what is needed, in one round trip. What the last statement
// reads is what there is once the lock is held.
func (x *tenantTx) begin(ctx context.Context) error {
	e := x.cause.Event
	user, payment, users := names(x.cause.Payload)
	batch := &pgx.Batch{}
	batch.Queue("BEGIN")
	batch.Queue(fmt.Sprintf("SET LOCAL lock_timeout = %d", lockTimeout.Milliseconds()))
	batch.Queue(tenantLockSQL, e.Key, e.Source, inboxID(x.cause)).Query(into(&x.lockRow))
	if x.timeout < lockTimeout { // for locks of other sessions; the company's own is only ever held for the time of an event
		batch.Queue(fmt.Sprintf("SET LOCAL lock_timeout = %d", x.timeout.Milliseconds()))
	}
	var row loadedRow
	batch.Queue(tenantLoadSQL, e.Key, e.Source, inboxID(x.cause), user, users, ofSubscription(e.Type)).Query(into(&row))
	if payment != "" {
		batch.Queue(paymentSQL, payment).Query(func(rows pgx.Rows) (err error) {
			x.state.Payment, err = pgx.CollectOneRow(rows, pgx.RowToAddrOfStructByName[tenant.Payment])
			if errors.Is(err, pgx.ErrNoRows) {
				x.state.Payment, err = nil, nil
			}
			return err
		})
	}
	x.loadVoid(batch)
	err := x.conn.SendBatch(ctx, batch).Close()
	if unreadable := (pgx.ScanArgError{}); errors.As(err, &unreadable) {
		return &stateError{fmt.Errorf("read company %s: %w", e.Key, err)}
	}
	if err == nil {
		x.load(&row)
	}
	return err
}

// A lockRow is the row of tenant_lock.sql.
type lockRow struct {
	Blocked bool // the company can't go on
	Faulty  bool // the event can't be read, or was refused by Postgres after it had waited
	Locked  bool // the company's lock is held
}

// A loadedRow is the row of tenant_load.sql.
type loadedRow struct {
	CompanyName, BillingEmail, CompanyCurrency, CompanyStatus string
	CreatedAt                                                 *time.Time // nil: there is no such company
	Config                                                    []byte
	Subscribed                                                bool
	tenant.Subscription
	Overrides tenant.Overrides
	heldRow
	LastEffectAt *time.Time
	auditHead
	Partitions int  // of subscription.events
	Headless   bool // the audit log has records, and where it goes on is lost
	inboxRow
	QueueHead                          int64
	UserOf                             string
	Users, SchemaVersion, NewestSchema int64
}

// A heldRow is what stands beside a subscription, in the rows of tenant_load.sql and subscription.sql.
type heldRow struct {
	NextPeriodStart, NextPeriodEnd *time.Time // of the renewal; nil: there is none
	tenant.Books
	AheadReceived int64
	AheadFailed   bool
	EffectAt      *time.Time // of the last effect of the topic; nil: there was none
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

// load takes over what was read.
func (x *tenantTx) load(row *loadedRow) {
	s := &x.state
	s.CompanyID, s.Config, s.Books, s.Ahead = x.cause.Event.Key, row.Config, row.Books, row.ahead()
	s.Overrides = row.Overrides
	s.UserOf, s.Users, s.SchemaVersion, s.NewestSchema = row.UserOf, row.Users, row.SchemaVersion, row.NewestSchema
	x.last, x.audit, x.headless, x.prior = row.LastEffectAt, row.auditHead, row.Headless, row.inboxRow
	if row.EffectAt != nil {
		s.LastEffect = *row.EffectAt
	}
	s.Queue.Head, s.Partitions = row.QueueHead, row.Partitions
	if x.prior.State == inboxWaiting {
		s.Queue.Own = x.prior.Seq
	}
	if row.CreatedAt != nil {
		s.Company = &tenant.Company{Name: row.CompanyName, BillingEmail: row.BillingEmail, Currency: row.CompanyCurrency, Status: row.CompanyStatus,
			CreatedAt: row.CreatedAt.UTC()}
	}
	if row.Subscribed {
		row.complete(&row.Subscription)
		s.Subscription = &row.Subscription
	}
}

// ahead is the money of the renewal.
func (h *heldRow) ahead() tenant.Ahead {
	return tenant.Ahead{Received: h.AheadReceived, Failed: h.AheadFailed}
}

// complete adds to a subscription what Postgres and JSON leave open.
func (h *heldRow) complete(s *tenant.Subscription) {
	s.PeriodStart, s.PeriodEnd = s.PeriodStart.UTC(), s.PeriodEnd.UTC()
	if s.Limits.Features == nil {
		s.Limits.Features = []string{}
	}
	if s.Renewal != nil {
		s.Renewal.Start, s.Renewal.End = h.NextPeriodStart.UTC(), h.NextPeriodEnd.UTC()
	}
}
