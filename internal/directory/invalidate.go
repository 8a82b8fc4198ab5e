package directory

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// invalidateTimeout bounds the deletion of what has changed from Dragonfly.
	invalidateTimeout = 5 * time.Second
	// maxOwed bounds what Dragonfly was not there to delete. A Directory sees by the versions that it is stale;
	// only programs that read the keys directly could read stale entries, until they expire.
	maxOwed = 100_000
	// membersPage is how many users of a company are asked for at once.
	membersPage = 1000
)

// An invalidator deletes from Dragonfly what has changed. What it can't delete it tries again.
type invalidator struct {
	d    *Directory
	wake chan struct{} // holds one element while there is something new

	mu        sync.Mutex
	origin    string           // of the versions
	sweep     bool             // what is of another origin is still to be deleted
	users     map[string]int64 // what they must be as new as to stay
	companies map[string]int64
}

func newInvalidator(d *Directory) *invalidator {
	return &invalidator{d: d, wake: make(chan struct{}, 1), users: map[string]int64{}, companies: map[string]int64{}}
}

// add has users and companies deleted soon, where Dragonfly has older versions of them.
func (v *invalidator) add(users, companies map[string]int64) {
	if v.d.config.Cache == nil || len(users)+len(companies) == 0 {
		return
	}
	v.mu.Lock()
	if owed := len(v.users) + len(v.companies); owed > maxOwed {
		v.d.log.Warn("changed users and companies could not be deleted from the cache", slog.Int("entries", owed))
		v.users, v.companies = map[string]int64{}, map[string]int64{}
	}
	merge(v.users, users)
	merge(v.companies, companies)
	v.mu.Unlock()
	v.wakeUp()
}

// begin has everything deleted that is of another origin. A Directory does not use it; programs that read the keys directly would, until
// it expires.
func (v *invalidator) begin(origin string) {
	if v.d.config.Cache == nil {
		return
	}
	v.mu.Lock()
	v.origin, v.sweep = origin, true
	v.users, v.companies = map[string]int64{}, map[string]int64{} // they are older than the origin
	v.mu.Unlock()
	v.wakeUp()
}

func (v *invalidator) wakeUp() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// merge keeps the higher version of each.
func merge(into, from map[string]int64) {
	for id, version := range from {
		into[id] = max(into[id], version)
	}
}

func (v *invalidator) run(ctx context.Context) {
	again := time.NewTicker(cacheRest)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.wake:
		case <-again.C:
		}
		v.mu.Lock()
		users, companies, origin, sweep := v.users, v.companies, v.origin, v.sweep
		v.users, v.companies = map[string]int64{}, map[string]int64{}
		v.mu.Unlock()
		if sweep && v.deleteOthers(ctx, origin) == nil {
			v.mu.Lock()
			v.sweep = v.origin != origin
			v.mu.Unlock()
		}
		if v.delete(ctx, users, companies, origin) != nil {
			v.owe(users, companies, origin)
			continue
		}
		for company, version := range companies {
			if v.deleteMembers(ctx, company, version, origin) != nil {
				v.owe(nil, companies, origin)
				break
			}
			delete(companies, company)
		}
	}
}

// deleteOthers deletes what is of another origin.
func (v *invalidator) deleteOthers(ctx context.Context, origin string) error {
	for cursor := uint64(0); ; {
		err := v.d.ask(ctx, byDragonfly, invalidateTimeout, func(ctx context.Context) (err error) {
			cursor, err = v.d.config.Cache.Sweep(ctx, origin, cursor)
			return err
		})
		if err != nil || cursor == 0 {
			return err
		}
	}
}

// owe takes back what could not be deleted.
func (v *invalidator) owe(users, companies map[string]int64, origin string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.origin == origin {
		merge(v.users, users)
		merge(v.companies, companies)
	}
}

func (v *invalidator) deleteMembers(ctx context.Context, company string, version int64, origin string) error {
	for after, more := "", v.d.config.Members != nil; more; {
		var ids []string
		err := v.d.askPostgres(ctx, func(ctx context.Context) (err error) {
			ids, err = v.d.config.Members(ctx, company, after, membersPage)
			return err
		})
		if err != nil {
			return err
		}
		users := make(map[string]int64, len(ids))
		for _, id := range ids {
			users[id] = version
		}
		if err := v.delete(ctx, users, nil, origin); err != nil {
			return err
		}
		if more = len(ids) == membersPage; more {
			after = ids[len(ids)-1]
		}
	}
	return nil
}

func (v *invalidator) delete(ctx context.Context, users, companies map[string]int64, origin string) error {
	if len(users)+len(companies) == 0 {
		return nil
	}
	return v.d.ask(ctx, byDragonfly, invalidateTimeout, func(ctx context.Context) error {
		return v.d.config.Cache.Invalidate(ctx, users, companies, origin)
	})
}
