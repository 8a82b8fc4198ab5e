package postgres

import (
	"context"
	_ "embed"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/tenant"
)

var (
	//go:embed queries/inbox_stranded.sql
	inboxStrandedSQL string
	//go:embed queries/inbox_overdue.sql
	inboxOverdueSQL string
	//go:embed queries/backlog.sql
	backlogSQL string
)

// Stranded returns up to limit companies for which events wait that could be applied: the process that was to apply them has died. Those
// that can't go on are for Retry.
func (t *Tenants) Stranded(ctx context.Context, limit int) ([]string, error) {
	return collect(ctx, t.store, "look for events that wait for nothing", pgx.RowTo[string], inboxStrandedSQL, limit)
}

// GiveUp refuses up to limit events whose time to wait for their company was over some time ago.
func (t *Tenants) GiveUp(ctx context.Context, ago time.Duration, limit int) ([]Applied, error) {
	var unreadable []*unreadableError
	var causes []*tenant.Cause
	_, err := collect(ctx, t.store, "look for events that have waited too long", func(row pgx.CollectableRow) (struct{}, error) {
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
	}, inboxOverdueSQL, ago, limit)
	if err != nil {
		return nil, err
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
	err = t.transaction(ctx, c, nil, func(ctx context.Context, x *tenantTx) error {
		if x.state.Company != nil || x.prior.State != inboxWaiting {
			return nil
		}
		if _, due := tenant.NamedDue(c.Payload); due {
			return x.drop(ctx)
		}
		d := &tenant.Decision{At: effectTime(c.Event.Time), Refused: unknownCompany(c.Event.Key, t.wait)}
		one, err = x.write(ctx, d, x.prior.Fingerprint)
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
	return collectOne(ctx, t.store, "count what is not at its end", pgx.RowToStructByName[Backlog], backlogSQL, t.mark.since())
}
