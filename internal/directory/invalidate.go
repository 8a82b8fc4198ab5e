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
	// maxOwed bounds what Dragonfly was not there to delete. Whoever uses a Directory sees by the versions that it is
	// old; only who reads the keys by themselves could be told something old by them, until they expire.
	maxOwed = 100_000
	// membersPage is how many users of a company are asked for at once.
	membersPage = 1000
)

// An invalidator deletes from Dragonfly what has changed. What it can't delete it tries again.
type invalidator struct {
	d    *Directory
	wake chan struct{} // holds one element while there is something new

	mu        sync.Mutex
	users     []string
	companies []string
}

func newInvalidator(d *Directory) *invalidator {
	return &invalidator{d: d, wake: make(chan struct{}, 1)}
}

// add has users and companies deleted soon.
func (v *invalidator) add(users, companies []string) {
	if v.d.config.Cache == nil || len(users)+len(companies) == 0 {
		return
	}
	v.mu.Lock()
	if owed := len(v.users) + len(v.companies); owed > maxOwed {
		v.d.log.Warn("changed users and companies could not be deleted from the cache", slog.Int("keys", owed))
		v.users, v.companies = nil, nil
	}
	v.users = append(v.users, users...)
	v.companies = append(v.companies, companies...)
	v.mu.Unlock()
	select {
	case v.wake <- struct{}{}:
	default:
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
		users, companies := v.users, v.companies
		v.users, v.companies = nil, nil
		v.mu.Unlock()
		if len(users)+len(companies) == 0 {
			continue
		}
		if v.delete(ctx, users, nil) != nil {
			v.owe(users, companies)
			continue
		}
		for i, company := range companies {
			if v.deleteCompany(ctx, company) != nil {
				v.owe(nil, companies[i:])
				break
			}
		}
	}
}

// owe takes back what could not be deleted.
func (v *invalidator) owe(users, companies []string) {
	v.mu.Lock()
	v.users = append(v.users, users...)
	v.companies = append(v.companies, companies...)
	v.mu.Unlock()
}

func (v *invalidator) deleteCompany(ctx context.Context, company string) error {
	if err := v.delete(ctx, nil, []string{company}); err != nil || v.d.config.Members == nil {
		return err
	}
	after := ""
	for {
		var users []string
		err := v.d.ask(ctx, byPostgres, v.d.config.LoadTimeout, func(ctx context.Context) (err error) {
			users, err = v.d.config.Members(ctx, company, after, membersPage)
			return err
		})
		if err != nil {
			return err
		}
		if err := v.delete(ctx, users, nil); err != nil || len(users) < membersPage {
			return err
		}
		after = users[len(users)-1]
	}
}

func (v *invalidator) delete(ctx context.Context, users, companies []string) error {
	if len(users)+len(companies) == 0 {
		return nil
	}
	return v.d.ask(ctx, byDragonfly, invalidateTimeout, func(ctx context.Context) error {
		return v.d.config.Cache.Invalidate(ctx, users, companies)
	})
}
