package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

var (
	//go:embed queries/config_put.sql
	configPutSQL string
	//go:embed queries/subscription_put.sql
	subscriptionPutSQL string
	//go:embed queries/inbox_purge_held.sql
	inboxPurgeHeldSQL string
	//go:embed queries/transaction_put.sql
	transactionPutSQL string
	//go:embed queries/payment_put.sql
	paymentPutSQL string
	//go:embed queries/payments_adopt.sql
	paymentsAdoptSQL string
	//go:embed queries/audit_put.sql
	auditPutSQL string
	//go:embed queries/head_put.sql
	headPutSQL string
	//go:embed queries/inbox_done.sql
	inboxDoneSQL string
	//go:embed queries/inbox_due.sql
	inboxDueSQL string
)

// write brings a decision into the tables and commits. First what tells something that the results say, then the rest with the
// commit: two round trips, the first of which many events don't need.
func (x *tenantTx) write(ctx context.Context, d *tenant.Decision, print []byte) (*Applied, error) {
	x.countTenant()
	w := tenant.Written{SchemaBefore: x.state.SchemaVersion}
	if d.Transaction != nil {
		w.TransactionID = events.ResultID(x.cause.Event.Source, x.cause.Event.ID, "transaction", 0)
	}
	effects := &pgx.Batch{}
	x.effects(effects, d, &w)
	if effects.Len() > 0 {
		ownFaults(effects, x.state.CompanyID)
		if err := x.conn.SendBatch(ctx, effects).Close(); err != nil {
			return nil, err
		}
	}
	records := &pgx.Batch{}
	state := inboxDone
	switch {
	case d.Refused != nil:
		state = inboxRejected
	case d.Held:
		state = inboxHeld
	case d.Silent:
	default:
		if err := x.records(records, d, w); err != nil {
			return nil, err
		}
	}
	result, err := x.result(d, w)
	if err != nil {
		return nil, err
	}
	x.voids(records, d)
	var stored []byte
	if err := x.finish(records, state, print, result, &stored); err != nil {
		return nil, err
	}
	x.tenants.step(TenantWritten)
	if err := x.conn.SendBatch(ctx, records).Close(); err != nil {
		return nil, err
	}
	x.ended = true
	if stored == nil {
		return nil, nil
	}
	return readApplied(&x.cause.Event.Envelope, stored)
}

// effects queues what the event does to the company's own tables.
func (x *tenantTx) effects(b *pgx.Batch, d *tenant.Decision, w *tenant.Written) {
	company := x.state.CompanyID
	if c := d.Create; c != nil {
		b.Queue("INSERT INTO public.companies (company_id, name, billing_email, currency, status, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
			company, c.Name, c.BillingEmail, c.Currency, c.Status, c.CreatedAt)
	}
	if d.Subscription != nil {
		x.subscription(b, d.Subscription)
	}
	if d.Create != nil {
		b.Queue("SELECT public.create_company_schema($1)", company)
		b.Queue("SELECT public.tenant_schema_version($1)", company).QueryRow(func(row pgx.Row) error { return row.Scan(&w.Schema) })
	}
	if d.Remove != "" {
		b.Queue("SELECT set_config('tenantflow.effective_at', $1::timestamptz::text, true)", d.At) // the user belongs to it until then
		b.Queue("SELECT public.tenant_user_remove($1, $2, $3)", company, d.Remove, d.At)
	}
	if d.Add != nil {
		b.Queue("SELECT public.tenant_user_put($1, $2, $3, $4)", company, d.Add.ID, d.Add.Email, d.At)
	}
	if d.Config != nil {
		b.Queue(configPutSQL, company, d.Config).QueryRow(func(row pgx.Row) error { return row.Scan(&w.ConfigVersion, &w.Config) })
	}
	if d.BillingEmail != "" {
		b.Queue("UPDATE public.companies SET billing_email = $2 WHERE company_id = $1", company, d.BillingEmail)
	}
	if d.Overrides != nil {
		x.overrides(b, *d.Overrides)
	}
	if d.Seat {
		x.seat(b, d, w)
	}
	if d.ListUsers {
		b.Queue("SELECT user_id FROM public.user_directory WHERE company_id = $1 ORDER BY user_id", company).Query(func(rows pgx.Rows) (err error) {
			w.Users, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
	}
	if d.Migrate != nil {
		b.Queue("SELECT public.migrate_company_schema($1, nullif($2::bigint, 0))", company, *d.Migrate).QueryRow(func(row pgx.Row) error { return row.Scan(&w.Schema) })
	}
	if d.Close {
		x.close(b, d)
	}
	if d.Forget {
		b.Queue("DELETE FROM public.subscriptions WHERE company_id = $1", company)
	}
}

// subscription queues the row of the subscription.
func (x *tenantTx) subscription(b *pgx.Batch, s *tenant.Subscription) {
	benefits := s.Benefits
	if benefits == nil {
		benefits = map[string]any{}
	}
	var nextStart, nextEnd *time.Time
	var renewal, expired, previous any
	if r := s.Renewal; r != nil {
		nextStart, nextEnd, renewal = &r.Start, &r.End, r
	}
	previous = ""
	if s.Expired != nil {
		expired, previous = s.Expired, s.Expired.Tier
	}
	b.Queue(subscriptionPutSQL, x.state.CompanyID, s.Tier, s.Status, s.PeriodStart, s.PeriodEnd, s.Months, s.PriceMinor, s.Currency,
		s.PendingTier, s.PendingAt, s.CancelAtEnd, s.GraceUntil, s.RenewalUntil, nextStart, nextEnd, renewal,
		s.Failed, expired, previous, s.AnchorDay, s.Limits, benefits, s.Partition, s.ClosedAt, s.ClosedIn)
}

// seat queues the tier of all users, and who of them is active.
func (x *tenantTx) seat(b *pgx.Batch, d *tenant.Decision, w *tenant.Written) {
	s := d.Subscription
	if s == nil {
		s = x.state.Subscription
	}
	if s == nil {
		return
	}
	overrides := x.state.Overrides
	if d.Overrides != nil {
		overrides = *d.Overrides
	}
	limits := overrides.Over(s.Limits)
	var places *int64
	if limits.MaxUsers != tier.Unlimited {
		n := int64(limits.MaxUsers)
		places = &n
	}
	b.Queue("SELECT user_id, status FROM public.seat_users($1, $2, $3, $4, $5, $6, $7) ORDER BY user_id",
		x.state.CompanyID, s.Tier, s.PeriodStart, s.PeriodEnd, limits, places, d.At).Query(func(rows pgx.Rows) (err error) {
		w.Seats, err = pgx.CollectRows(rows, pgx.RowToStructByName[tenant.Seat])
		return err
	})
}

// close queues the end of a company.
func (x *tenantTx) close(b *pgx.Batch, d *tenant.Decision) {
	company := x.state.CompanyID
	b.Queue("UPDATE public.subscriptions SET closing_at = $2 WHERE company_id = $1 AND closing_at IS NULL", company, d.At)
	if !d.Purge {
		b.Queue("UPDATE public.companies SET status = $2, closed_at = $3 WHERE company_id = $1", company, tenant.Closed, d.At)
		return
	}
	b.Queue("SELECT public.drop_company_schema($1)", company)
	b.Queue("SELECT set_config('tenantflow.effective_at', $1::timestamptz::text, true)", d.At) // its users belong to it until then
	for _, table := range []string{"limit_overrides", "user_directory", "company_config"} {
		b.Queue("DELETE FROM public."+table+" WHERE company_id = $1", company)
	}
	// What was published names users and emails; the identities of the events stay, so that they have no effect again.
	b.Queue("UPDATE public.inbox SET result = NULL WHERE company_id = $1 AND (published_at IS NOT NULL OR fault IS NOT NULL)", company)
	b.Queue("DELETE FROM public.usage_voids WHERE company_id = $1", company) // ids of events, which a producer may have made of anything
	b.Queue(inboxPurgeHeldSQL, company)
	b.Queue("UPDATE public.companies SET status = $2, closed_at = coalesce(closed_at, $3), name = '', billing_email = '' WHERE company_id = $1",
		company, tenant.Purged, d.At)
	// About its users. Behind the update, which waits for those who write some under a lock of the company's row.
	b.Queue("DELETE FROM public.recommendations WHERE company_id = $1", company)
}

// records queues what is kept of the effect: money, history, audit.
func (x *tenantTx) records(b *pgx.Batch, d *tenant.Decision, w tenant.Written) error {
	company, e := x.state.CompanyID, x.cause.Event
	if tx := d.Transaction; tx != nil {
		lines := tx.Adjustment.Lines
		if lines == nil {
			lines = []tier.Line{}
		}
		var payment any
		if tx.Payment != nil {
			payment = tx.Payment
		}
		b.Queue(transactionPutSQL, w.TransactionID, company, tx.Type, tx.OldTier, tx.NewTier, tx.Adjustment.AmountMinor, tx.Adjustment.Currency,
			lines, tx.Adjustment.PeriodStart, tx.Adjustment.PeriodEnd, payment, d.At)
	}
	x.payments(b, d, w)
	if strings.HasPrefix(d.Action, "subscription.") || d.Create != nil {
		b.Queue("INSERT INTO public.subscription_events (company_id, event, event_time, data, source, event_id) VALUES ($1, $2, $3, $4, $5, $6)",
			company, d.Action, d.At, d.Details, e.Source, e.ID)
	}
	details, err := json.Marshal(d.Details)
	if err != nil {
		return unwritable("the audit record of "+d.Action, err)
	}
	x.audit.Seq++
	record := AuditRecord{CompanyID: company, Seq: x.audit.Seq, Source: e.Source, EventID: e.ID, Type: e.Type, Action: d.Action,
		OccurredAt: d.At, Details: string(details), PreviousHash: x.audit.Hash}
	record.Hash = record.Sum()
	x.audit.Hash = record.Hash
	appendAudit(b, &record)
	var ofSub, ofCompany *time.Time // an effect of one topic leaves the other's time as it is
	switch {
	case d.Undated:
	case ofSubscription(e.Type):
		ofSub = &d.At
	default:
		ofCompany = &d.At
	}
	if x.last == nil || x.last.Before(d.At) {
		x.last = &d.At
	}
	b.Queue(headPutSQL, company, x.last, ofSub, ofCompany, x.audit.Seq, x.audit.Hash)
	return nil
}

// payments queues what the event says of payments.
func (x *tenantTx) payments(b *pgx.Batch, d *tenant.Decision, w tenant.Written) {
	company := x.state.CompanyID
	if p := d.Payment; p != nil {
		transaction := p.TransactionID
		if d.Transaction != nil {
			transaction = w.TransactionID
		}
		b.Queue(paymentPutSQL, p.PaymentID, company, p.AmountMinor, p.Currency, p.PaidAt, p.Method, p.Status, p.BillingPeriod, transaction,
			p.PeriodStart, p.Reason, d.At).QueryRow(raced)
	}
	if d.Covers != "" {
		b.Queue("UPDATE public.payments SET transaction_id = $3, updated_at = $4 WHERE company_id = $1 AND payment_id = $2 AND period_start = $5",
			company, d.Covers, w.TransactionID, d.At, d.Subscription.PeriodStart)
	}
	if d.Release != nil {
		b.Queue("UPDATE public.payments SET period_start = NULL, updated_at = $3 WHERE company_id = $1 AND period_start = $2 AND transaction_id IS NULL",
			company, *d.Release, d.At)
	}
	if d.Adopt {
		b.Queue(paymentsAdoptSQL, company, d.Subscription.PeriodStart, d.Subscription.PeriodStart.UTC().Format("2006-01"), d.At)
	}
}

// finish queues the row of the inbox and the commit.
func (x *tenantTx) finish(b *pgx.Batch, state string, print, result []byte, stored *[]byte) error {
	e := x.cause.Event
	var kept []byte
	if state == inboxHeld {
		var err error
		if kept, err = writeEvent(x.cause); err != nil {
			return err
		}
	}
	x.keepPartition(b)
	x.keepCompanyPartition(b)
	if _, due := tenant.NamedDue(x.cause.Payload); due {
		b.Queue(inboxDueSQL, e.Source, e.ID, e.Type, e.Key, state, print, result).QueryRow(func(row pgx.Row) error { return row.Scan(stored) })
		b.Queue("DELETE FROM public.due_events WHERE company_id = $1 AND event_id = $2", e.Key, e.ID)
		b.Queue("COMMIT")
		return nil
	}
	b.Queue(inboxDoneSQL, e.Source, e.ID, e.Type, e.Key, state, print, result, kept).QueryRow(func(row pgx.Row) error {
		return isRaced(row.Scan(stored))
	})
	b.Queue("COMMIT")
	return nil
}

// raced reads one row that is there unless another transaction was faster.
func raced(row pgx.Row) error {
	var one int
	return isRaced(row.Scan(&one))
}

func isRaced(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return errRaced
	}
	return err
}

// result is what is to be published, as it is stored; nil: nothing.
func (x *tenantTx) result(d *tenant.Decision, w tenant.Written) ([]byte, error) {
	e := x.cause.Event
	r := inboxResult{Consumer: consumerOf(e.Type), At: d.At, TraceParent: e.TraceParent, TraceState: e.TraceState}
	var outputs []tenant.Output
	switch {
	case d.Held:
		return nil, nil
	case d.Silent:
	case d.Refused != nil:
		outputs = []tenant.Output{refusal(e, d.Refused)}
	default:
		outputs = d.Outputs(w)
		for i := range outputs {
			if t := outputs[i].Topic; t == events.TopicCompanyResults || t == events.TopicSubscriptionResults {
				// The record of this effect, so that a tail that is cut off the log, or a recreated log, shows.
				outputs[i].Data["audit_seq"], outputs[i].Data["audit_hash"] = x.audit.Seq, x.audit.Hash
			}
		}
	}
	return r.encode(outputs, x.state.CompanyID)
}

// refusal is the event that says why another was refused.
func refusal(e *events.Event, why *tier.Refusal) tenant.Output {
	out := tenant.Output{Topic: events.TopicCompanyResults, Type: events.TypeCompanyRejected}
	if consumerOf(e.Type) == "subscription" {
		out = tenant.Output{Topic: events.TopicSubscriptionResults, Type: events.TypeSubscriptionRejected}
	}
	out.Data = map[string]any{"company_id": e.Key, "request_type": e.Type, "request_id": e.ID, "request_source": e.Source,
		"code": why.Code, "message": why.Message}
	return out
}

// consumerOf names the consumer that an event of a type belongs to.
func consumerOf(eventType string) string {
	name, _, _ := strings.Cut(eventType, ".")
	return name
}

// countTenant counts how many transactions a connection has been in: a backend remembers every table it has touched, and there
// are thousands of tenants.
func (x *tenantTx) countTenant() { touchTenant(x.conn) }

// touchTenant counts a tenant that a connection touches.
func touchTenant(conn *pgx.Conn) {
	data := conn.PgConn().CustomData()
	n, _ := data[tenantsTouched].(int)
	data[tenantsTouched] = n + 1
}

const (
	tenantsTouched    = "tenants_touched"
	tenantsTouchedMax = 2000
)

// worn reports whether a connection has touched so many tenants that a new one is cheaper.
func worn(conn *pgx.Conn) bool {
	n, _ := conn.PgConn().CustomData()[tenantsTouched].(int)
	return n >= tenantsTouchedMax
}

// effectTime is a time as it is read back.
func effectTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
