package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

// Stranded returns up to limit companies that are registered while events still wait for them: who was to apply them has died.
func (t *Tenants) Stranded(ctx context.Context, limit int) ([]string, error) {
	return t.companies(ctx, "look for events that wait for nothing", `SELECT DISTINCT i.company_id
		FROM public.inbox AS i JOIN public.companies AS c ON c.company_id = i.company_id
		WHERE i.state = 'waiting' LIMIT $1`, limit)
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
	rows, err := t.store.pool.Query(bounded, "SELECT event FROM public.inbox WHERE state = 'waiting' AND wait_until <= clock_timestamp() - $1::interval ORDER BY seq LIMIT $2", ago, limit)
	if err != nil {
		return nil, explain("look for events that have waited too long", err)
	}
	causes, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*tenant.Cause, error) {
		var text []byte
		if err := row.Scan(&text); err != nil {
			return nil, err
		}
		return readEvent(text)
	})
	if err != nil {
		return nil, explain("look for events that have waited too long", err)
	}
	var all []Applied
	for _, c := range causes {
		one, err := t.giveUp(ctx, c)
		if err != nil {
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
	Waiting     int64         // events whose company is not registered
	Unpublished int64         // events that are done and whose results are not known to be published
	Oldest      time.Duration // how long ago the first of those was done
}

// Backlog counts what is not at its end.
func (t *Tenants) Backlog(ctx context.Context) (Backlog, error) {
	ctx, cancel := t.store.bounded(ctx)
	defer cancel()
	var b Backlog
	err := t.store.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM public.inbox WHERE state = 'waiting'), count(*),
			coalesce(clock_timestamp() - min(applied_at), '0')
		FROM public.inbox WHERE published_at IS NULL AND state IN ('done', 'rejected')`).Scan(&b.Waiting, &b.Unpublished, &b.Oldest)
	if err != nil {
		return b, explain("count what is not at its end", err)
	}
	return b, nil
}
