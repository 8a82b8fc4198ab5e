package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

// Stranded returns up to limit companies for which events wait that could be applied: the process that was to apply them has died. Those
// that can't go on are for Retry.
func (t *Tenants) Stranded(ctx context.Context, limit int) ([]string, error) {
	return t.companies(ctx, "look for events that wait for nothing", `SELECT DISTINCT i.company_id
		FROM public.inbox AS i
		WHERE i.state = 'waiting'
			AND (i.type = '`+events.TypeCompanyRegistered+`' OR EXISTS (SELECT FROM public.companies AS c WHERE c.company_id = i.company_id))
			AND NOT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = i.company_id)
		LIMIT $1`, limit)
}

// Due returns up to limit companies to which something has to happen by itself by the given time, of those that a partition of
// the subscription topic decides about. The first partition also decides about those that no event has come for.
func (t *Tenants) Due(ctx context.Context, partition int, by time.Time, limit int) ([]string, error) {
	return t.companies(ctx, "look for what is due", `SELECT s.company_id
		FROM public.subscriptions AS s JOIN public.companies AS c ON c.company_id = s.company_id
		WHERE s.due_at <= $2 AND c.status = 'active' AND (s.event_partition = $1 OR s.event_partition IS NULL AND $1 = 0)
			AND NOT EXISTS (SELECT FROM public.inbox AS i WHERE i.company_id = s.company_id AND i.state = 'waiting')
			AND NOT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = s.company_id)
		ORDER BY s.due_at LIMIT $3`, partition, by, limit)
}

func (t *Tenants) companies(ctx context.Context, doing, query string, args ...any) ([]string, error) {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	rows, err := t.store.pool.Query(ctx, query, args...)
	if err == nil {
		var found []string
		if found, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil {
			return found, nil
		}
	}
	return nil, explain(doing, err)
}

// ApplyDue does to a company what is due by the given time. Nothing is due any more if somebody else was faster.
func (t *Tenants) ApplyDue(ctx context.Context, company string, partition int, by time.Time) ([]Applied, error) {
	var all []Applied
	for {
		s := &tenant.State{CompanyID: company, Subscription: &tenant.Subscription{}}
		bounded, cancel := t.store.bounded(ctx)
		err := t.store.pool.QueryRow(bounded, "SELECT coalesce(pending_tier, ''), period_end, due_at FROM public.subscriptions WHERE company_id = $1", company).
			Scan(&s.Subscription.PendingTier, &s.Subscription.PeriodEnd, &s.Subscription.Due)
		cancel()
		if err != nil {
			return all, explain("read what is due", err)
		}
		if s.Subscription.Due == nil || s.Subscription.Due.After(by) {
			return all, nil
		}
		c := tenant.DueCause(s)
		c.Partition, c.Payload.(*tenant.Due).ByClock = partition, true
		one, first, err := t.once(ctx, attempt{cause: c})
		if err != nil {
			return all, t.setAside(ctx, c, err)
		}
		if one != nil {
			all = append(all, *one)
		}
		if first != nil || one == nil {
			return all, nil // there will be another time
		}
	}
}

// GiveUp refuses up to limit events whose time to wait for their company was over some time ago.
func (t *Tenants) GiveUp(ctx context.Context, ago time.Duration, limit int) ([]Applied, error) {
	bounded, cancel := t.store.bounded(ctx)
	defer cancel()
	rows, err := t.store.pool.Query(bounded, `SELECT source, event_id, event FROM public.inbox AS i
		WHERE state = 'waiting' AND wait_until <= clock_timestamp() - $1::interval AND type <> '`+events.TypeCompanyRegistered+`'
			AND NOT EXISTS (SELECT FROM public.companies AS c WHERE c.company_id = i.company_id)
			AND NOT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = i.company_id)
		ORDER BY seq LIMIT $2`, ago, limit)
	if err != nil {
		return nil, explain("look for events that have waited too long", err)
	}
	var unreadable []*unreadableError
	var causes []*tenant.Cause
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		c, err := readWaiting(row)
		var one *unreadableError
		switch {
		case errors.As(err, &one):
			unreadable = append(unreadable, one)
			return struct{}{}, nil
		case err == nil:
			causes = append(causes, c)
		}
		return struct{}{}, err
	})
	if err != nil {
		return nil, explain("look for events that have waited too long", err)
	}
	for _, one := range unreadable {
		if err := t.hold(ctx, &one.row, one.cause); err != nil {
			return nil, err
		}
	}
	var all []Applied
	for _, c := range causes {
		one, err := t.giveUp(ctx, c)
		var blocked *BlockedError
		switch {
		case errors.As(err, &blocked):
			continue // there will be another time
		case err != nil:
			return all, err
		}
		if one != nil {
			all = append(all, *one)
		}
	}
	return all, nil
}

// giveUp refuses one event, unless its company is there by now: then its turn comes in its place.
func (t *Tenants) giveUp(ctx context.Context, c *tenant.Cause) (one *Applied, err error) {
	err = t.transaction(ctx, c, func(ctx context.Context, x *tenantTx) error {
		if x.state.Company != nil || x.prior.state != inboxWaiting {
			return nil
		}
		d := &tenant.Decision{At: effectTime(c.Event.Time), Refused: unknownCompany(c.Event.Key, t.wait)}
		one, err = x.write(ctx, d, x.prior.fingerprint)
		return err
	})
	return one, err
}

// A Backlog is what is not at its end.
type Backlog struct {
	Waiting     int64         // events whose company is not registered, or can't go on
	Faulty      int64         // rows of the inbox that can't be read or applied
	Blocked     int64         // companies that can't go on
	Unpublished int64         // events that are done and whose results are not known to be published
	Oldest      time.Duration // how long ago the first of those was done
}

// Backlog counts what is not at its end.
func (t *Tenants) Backlog(ctx context.Context) (Backlog, error) {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	var b Backlog
	err := t.store.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM public.inbox WHERE state = 'waiting'),
			(SELECT count(*) FROM public.inbox WHERE fault IS NOT NULL), (SELECT count(*) FROM public.company_blocks),
			count(*), coalesce(clock_timestamp() - min(applied_at), '0')
		FROM public.inbox WHERE published_at IS NULL AND state IN ('done', 'rejected') AND fault IS NULL`).
		Scan(&b.Waiting, &b.Faulty, &b.Blocked, &b.Unpublished, &b.Oldest)
	if err != nil {
		return b, explain("count what is not at its end", err)
	}
	return b, nil
}
