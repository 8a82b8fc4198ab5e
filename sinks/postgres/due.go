package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

var (
	//go:embed queries/due.sql
	dueSQL string
	//go:embed queries/closings.sql
	closingsSQL string
	//go:embed queries/due_mark.sql
	dueMarkSQL string
)

// dueAgain is after how long something due is published again that has had no effect.
const dueAgain = 10 * time.Minute

// Due returns the events of up to limit companies to which something is due, by Postgres' clock and by the given time (zero: any), of those that a
// partition of the subscription topic decides about, and that were not published a short while ago. Publish them to that partition,
// and call MarkDue. The first partition also decides about companies that no event has come for.
func (t *Tenants) Due(ctx context.Context, partition int, by time.Time, limit int) ([]*events.Event, error) {
	var until *time.Time
	if !by.IsZero() {
		until = &by
	}
	due, err := collect(ctx, t.store, "look for what is due", readDue, dueSQL, partition, until, events.TopicSubscription, dueAgain, limit)
	if err != nil || len(due) == limit {
		return due, err
	}
	closings, err := collect(ctx, t.store, "look for subscriptions of closed companies", readClosing, closingsSQL, partition, events.TopicSubscription, dueAgain, limit-len(due))
	return append(due, closings...), err
}

// A closingRow is a row of closings.sql.
type closingRow struct {
	CompanyID string
	ClosingAt time.Time
}

// readClosing makes the event that ends a company's subscription once more.
func readClosing(row pgx.CollectableRow) (*events.Event, error) {
	r, err := pgx.RowToStructByName[closingRow](row)
	if err != nil {
		return nil, err
	}
	return tenant.DueCause(r.CompanyID, tenant.Due{Kind: tenant.DueClosing, At: r.ClosingAt}).Event, nil
}

// A dueRow is a row of due.sql.
type dueRow struct {
	CompanyID, Status                                    string
	PendingAt, GraceUntil, RenewalUntil, NextPeriodStart *time.Time
}

// readDue makes the event of the first thing that is due to a company.
func readDue(row pgx.CollectableRow) (*events.Event, error) {
	r, err := pgx.RowToStructByName[dueRow](row)
	if err != nil {
		return nil, err
	}
	sub := &tenant.Subscription{Term: tenant.Term{PendingAt: r.PendingAt, GraceUntil: r.GraceUntil}, Status: r.Status, RenewalUntil: r.RenewalUntil}
	if r.NextPeriodStart != nil {
		sub.Renewal = &tenant.Renewal{Start: *r.NextPeriodStart}
	}
	s := tenant.State{CompanyID: r.CompanyID, Company: &tenant.Company{Status: tenant.Active}, Subscription: sub}
	return tenant.DueCause(s.CompanyID, s.Due()[0]).Event, nil
}

// MarkDue notes that events of what is due are published, all of one topic.
func (t *Tenants) MarkDue(ctx context.Context, published []*events.Event) error {
	if len(published) == 0 {
		return nil
	}
	topic, _ := events.TopicOf(published[0].Type)
	companies, ids, times := make([]string, len(published)), make([]string, len(published)), make([]time.Time, len(published))
	for i, e := range published {
		companies[i], ids[i], times[i] = e.Key, e.ID, e.Time
	}
	_, err := t.store.exec(ctx, "note what is published of what is due", dueMarkSQL, companies, ids, times, topic)
	return err
}

// keepPartition queues which partition of the subscription topic decides about the company: that of its last event.
func (x *tenantTx) keepPartition(b *pgx.Batch) {
	s := x.state.Subscription
	if named, isDue := tenant.NamedDue(x.cause.Payload); isDue && named.Kind == tenant.DueClosing {
		return // it may be in all partitions
	}
	if s != nil && slices.Contains(s.ClosedIn, x.cause.Partition) {
		return // it is refused, and the company's events may be in another one
	}
	if s == nil || !ofSubscription(x.cause.Event.Type) || s.Partition != nil && *s.Partition == x.cause.Partition {
		return
	}
	b.Queue("UPDATE public.subscriptions SET event_partition = $2 WHERE company_id = $1 AND event_partition IS DISTINCT FROM $2",
		x.state.CompanyID, x.cause.Partition)
}

// inboxID is the id of an event's own row in the inbox. What is due may be in the log twice, at places that differ in what they lead to,
// so each waits separately.
func inboxID(c *tenant.Cause) string {
	if _, due := tenant.NamedDue(c.Payload); due {
		return fmt.Sprintf("%s@%d/%d", c.Event.ID, c.Partition, c.Offset)
	}
	return c.Event.ID
}

// drop takes an event out of the company's queue that has no effect and leaves no trace.
func (x *tenantTx) drop(ctx context.Context) error {
	if x.prior.State != inboxWaiting {
		return nil
	}
	b := &pgx.Batch{}
	b.Queue("DELETE FROM public.inbox WHERE source = $1 AND event_id = $2 AND state = 'waiting'", x.cause.Event.Source, inboxID(x.cause))
	b.Queue("COMMIT")
	if err := x.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	x.ended = true
	return nil
}
