package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenantflow/events"
)

// A Scope is the companies that a caller may know of: a *token.Grant with named ones.
type Scope interface {
	Allows(company string) bool
	// Companies lists them.
	Companies() []string
	// Key is the same for scopes with the same companies only.
	Key() string
}

// outsideLife is how long the process remembers that a user is not in a scope. No change shortens it, because a change is something
// that only a user has who exists; so it is no longer than a change may take to be seen.
const outsideLife = 500 * time.Millisecond

// UserIn looks up a user of a company in the scope. Any other one is ErrUnknown, and whether there is such a user can't be inferred from
// the answer, from how long it takes, or from an error while a store is away: what the process or Dragonfly holds of users outside the
// scope is not used, Postgres is asked for a user of one of these companies, and finds no row in either case.
func (d *Directory) UserIn(ctx context.Context, id string, scope Scope) (*Subscription, error) {
	unknown := fmt.Errorf("user %q: %w", id, ErrUnknown)
	if !events.ValidID(id) {
		return nil, unknown
	}
	// First of all: from here on both kinds have taken the same way.
	key, now := scope.Key()+id, d.now()
	if e := d.outside.get(key); e != nil && now < e.expires {
		d.metrics.process.Inc()
		return nil, unknown
	}
	if e := usable(d, d.users.get(id), now); e != nil && scope.Allows(e.value.CompanyID) {
		d.metrics.process.Inc()
		return e.value, nil
	}
	loaded := d.scopedFlights.DoChan(key, func() (any, error) {
		if !d.begin() {
			return nil, errClosed
		}
		defer d.loads.Done()
		return d.loadIn(id, key, scope)
	})
	select {
	case result := <-loaded:
		if result.Err != nil {
			return nil, fmt.Errorf("look up user %q in a scope: %w", id, result.Err)
		}
		return result.Val.(*Subscription), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("look up user %q in a scope: %w", id, context.Cause(ctx))
	}
}

// loadIn is the counterpart of load for one user in a scope.
func (d *Directory) loadIn(id, key string, scope Scope) (*Subscription, error) {
	doubtful, s := d.cachedIn(id, scope)
	if s != nil {
		return s, nil
	}
	for try := 0; ; try++ {
		epoch, began := d.known.epoch.Load(), time.Now().UTC()
		s, err := d.queryIn(id, scope)
		switch {
		case errors.Is(err, ErrUnknown):
			d.metrics.lookups.WithLabelValues(byPostgres).Inc()
			d.outside.put(key, &entry[struct{}]{expires: d.now() + int64(outsideLife)})
			return nil, err
		case err != nil && doubtful != nil: // not known to be stale, and better than nothing
			d.keep(doubtful, epoch, doubtfulLife)
			d.metrics.lookups.WithLabelValues(byDragonfly).Inc()
			return doubtful, nil
		case err != nil:
			d.metrics.lookups.WithLabelValues(byNone).Inc()
			return nil, err
		}
		certain := d.date(s, epoch, began)
		var newer map[string]bool
		if certain {
			newer = d.putCached([]*Subscription{s})
		}
		doubt := !certain || newer[id] || d.known.changedSince(s.CompanyID, id, epoch)
		if doubt && try < reloads {
			d.metrics.reloads.Inc()
			continue
		}
		d.overrule(newer)
		if !doubt {
			d.keep(s, epoch, min(d.config.Life, s.Left()))
		}
		d.metrics.lookups.WithLabelValues(byPostgres).Inc()
		return s, nil
	}
}

// cachedIn looks for a user in Dragonfly. It returns an entry that may be stale, or one that is current.
func (d *Directory) cachedIn(id string, scope Scope) (doubtful, sure *Subscription) {
	epoch := d.known.epoch.Load()
	var s *Subscription
	err := d.askCache(d.ctx, func(ctx context.Context) (err error) {
		s, err = d.config.Cache.SubscriptionOf(ctx, id, scope.Allows)
		return err
	})
	if err != nil || s == nil {
		return nil, nil
	}
	switch d.known.judge(s.CompanyID, id, vintage{s.Version, s.CachedAt, s.Origin}) {
	case current:
		life := min(d.config.Life, s.Left())
		s.Quota = QuotaBlock{}
		d.keep(s, epoch, life)
		d.metrics.lookups.WithLabelValues(byDragonfly).Inc()
		return nil, s
	case unsure:
		return s, nil
	case outdated:
	}
	return nil, nil
}

// queryIn asks Postgres for a user of the companies in a scope.
func (d *Directory) queryIn(id string, scope Scope) (*Subscription, error) {
	select {
	case d.scopedLoads <- struct{}{}:
		defer func() { <-d.scopedLoads }()
	case <-d.ctx.Done():
		return nil, errClosed
	}
	var s Subscription
	err := d.askPostgres(d.ctx, func(ctx context.Context) (err error) {
		s, err = d.config.Loader.UserOf(ctx, id, scope.Companies())
		return err
	})
	return &s, err
}
