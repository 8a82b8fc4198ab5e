package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

var (
	//go:embed inbox_due.sql
	inboxDueSQL string
	//go:embed due.sql
	dueSQL string
)

// dueAgain is after how long something due is published again that has had no effect.
const dueAgain = 10 * time.Minute

// Due returns the events of up to limit companies to which something is due, by Postgres' clock and by the given time (zero: any), of those that a
// partition of the subscription topic decides about, and that were not published a short while ago. Publish them to that partition,
// and call MarkDue. The first partition also decides about companies that no event has come for.
func (t *Tenants) Due(ctx context.Context, partition int, by time.Time, limit int) ([]*events.Event, error) {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	var until *time.Time
	if !by.IsZero() {
		until = &by
	}
	rows, err := t.store.pool.Query(ctx, dueSQL, partition, until, events.TopicSubscription, dueAgain, limit)
	if err != nil {
		return nil, explain("look for what is due", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*events.Event, error) {
		s := tenant.State{Company: &tenant.Company{Status: tenant.Active}, Subscription: &tenant.Subscription{}}
		sub := s.Subscription
		var next *time.Time
		if err := row.Scan(&s.CompanyID, &sub.Status, &sub.PendingAt, &sub.GraceUntil, &sub.RenewalUntil, &next); err != nil {
			return nil, err
		}
		if next != nil {
			sub.Renewal = &tenant.Renewal{Start: *next}
		}
		return tenant.DueCause(s.CompanyID, s.Due()[0]).Event, nil
	})
	if err != nil {
		return nil, explain("look for what is due", err)
	}
	return found, nil
}

// MarkDue notes that events of what is due are published.
func (t *Tenants) MarkDue(ctx context.Context, published []*events.Event) error {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	companies, ids, times := make([]string, len(published)), make([]string, len(published)), make([]time.Time, len(published))
	for i, e := range published {
		companies[i], ids[i], times[i] = e.Key, e.ID, e.Time
	}
	_, err := t.store.pool.Exec(ctx, `INSERT INTO public.due_events AS d (company_id, topic, event_id, due_at, published_at)
		SELECT c.company_id, $4, n.event_id, n.due_at, clock_timestamp()
		FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS n (company_id, event_id, due_at)
		JOIN public.companies AS c ON c.company_id = n.company_id
		ORDER BY 1
		ON CONFLICT (company_id, topic) DO UPDATE SET (event_id, due_at, published_at) = (EXCLUDED.event_id, EXCLUDED.due_at, EXCLUDED.published_at)`,
		companies, ids, times, events.TopicSubscription)
	if err != nil {
		return explain("note what is published of what is due", err)
	}
	return nil
}

// keepPartition queues which partition of the subscription topic decides about the company: that of its last event.
func (x *tenantTx) keepPartition(b *pgx.Batch) {
	s := x.state.Subscription
	if s == nil || !ofSubscription(x.cause.Event.Type) || s.Partition != nil && *s.Partition == x.cause.Partition {
		return
	}
	b.Queue("UPDATE public.subscriptions SET event_partition = $2 WHERE company_id = $1 AND event_partition IS DISTINCT FROM $2",
		x.state.CompanyID, x.cause.Partition)
}

// inboxID is the id of an event's own row in the inbox. What is due may be in the log twice, at places that differ in what they lead to,
// so each waits separately.
func inboxID(c *tenant.Cause) string {
	if _, due := c.Payload.(*events.SubscriptionDue); due {
		return fmt.Sprintf("%s@%d/%d", c.Event.ID, c.Partition, c.Offset)
	}
	return c.Event.ID
}

// drop takes an event out of the company's queue that has no effect and leaves no trace.
func (x *tenantTx) drop(ctx context.Context) error {
	if x.prior.state != inboxWaiting {
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
