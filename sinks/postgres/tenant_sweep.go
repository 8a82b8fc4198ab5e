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
		if _, due := c.Payload.(*events.SubscriptionDue); due {
			return x.drop(ctx)
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
