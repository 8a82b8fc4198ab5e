package consumers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tenantflow/sinks/postgres"
)

const (
	// activityBatch is how many users a statement writes: it holds their rows locked.
	activityBatch = 1000

	// activityFailures bounds the failed writes of one flush. To find one company among a thousand takes ten. What is wrong with all of
	// them shows as often, and is tried again at the next flush.
	activityFailures = 12
)

// An activityFlush is one pass over what waits.
type activityFlush struct {
	*Activity
	failed int
	first  error // of a company alone
}

// flush writes what waits: first the users of companies whose last write succeeded, then each other company alone. A write that fails for
// a reason of its own is tried in halves, down to a single company, which then waits apart. So one company costs only its own. The error
// is the first that a company alone had, or the one that ended the flush.
func (a *Activity) flush(ctx context.Context) error {
	f := &activityFlush{Activity: a}
	a.mu.Lock()
	apart := slices.Collect(maps.Keys(a.apart)) // in any order, so that none is always the last
	a.mu.Unlock()
	if err := f.all(ctx, ""); err != nil {
		return err
	}
	for _, company := range apart {
		if err := f.all(ctx, company); err != nil {
			return err
		}
	}
	return f.first
}

// all writes what waits for one company, or for all that are not apart, if it is empty. The error ends the flush.
func (f *activityFlush) all(ctx context.Context, company string) error {
	for {
		seen := f.next(company)
		if len(seen) == 0 {
			f.rejoin(company)
			return nil
		}
		failed := f.failed
		if err := f.write(ctx, seen); err != nil {
			return err
		}
		if company != "" && f.failed > failed {
			return nil
		}
	}
}

// write writes users, in halves if need be. Afterwards they don't wait, or their company is apart. The error ends the flush.
func (f *activityFlush) write(ctx context.Context, seen []postgres.Activity) error {
	moved, err := f.cfg.Store.Touch(ctx, seen)
	if err == nil {
		f.metrics.written.Add(float64(moved))
		f.written(seen)
		return nil
	}
	if !errors.Is(err, context.Canceled) {
		f.metrics.failures.Inc()
	}
	if ctx.Err() != nil || !postgres.Separable(err) {
		return err
	}
	f.failed++
	at := halfOf(seen)
	if at == 0 {
		err = fmt.Errorf("company %s: %w", seen[0].CompanyID, err)
		f.setApart(seen[0].CompanyID)
		f.first = cmp.Or(f.first, err)
	}
	if f.failed >= activityFailures {
		return err
	}
	if at == 0 {
		return nil
	}
	if err := f.write(ctx, seen[:at]); err != nil {
		return err
	}
	return f.write(ctx, seen[at:])
}

// halfOf brings users into the order of their companies, and returns where the list can be cut between two of them, as near to its middle
// as there is a place; 0: they are all of one company.
func halfOf(seen []postgres.Activity) int {
	slices.SortStableFunc(seen, func(x, y postgres.Activity) int { return cmp.Compare(x.CompanyID, y.CompanyID) })
	cuts := func(at int) bool { return at > 0 && at < len(seen) && seen[at-1].CompanyID != seen[at].CompanyID }
	middle := len(seen) / 2
	for far := range middle + 1 {
		for _, at := range []int{middle - far, middle + far} {
			if cuts(at) {
				return at
			}
		}
	}
	return 0
}

// next returns the first that wait, of a company or of all that are not apart, and leaves them waiting.
func (a *Activity) next(company string) []postgres.Activity {
	a.mu.Lock()
	defer a.mu.Unlock()
	var seen []postgres.Activity
	for _, user := range a.waiting {
		u := a.users[user]
		if company == "" && a.apart[u.company] || company != "" && u.company != company {
			continue
		}
		seen = append(seen, postgres.Activity{CompanyID: u.company, UserID: user, At: time.UnixMilli(u.latest).UTC()})
		if len(seen) == activityBatch {
			break
		}
	}
	return seen
}

// written takes the users that were written off the list. One that was active again meanwhile was so by less than a step, as
// a rule; the user's next event makes up for it.
func (a *Activity) written(seen []postgres.Activity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range seen {
		u := a.users[s.UserID]
		if u.company == s.CompanyID {
			u.written = s.At.UnixMilli()
		}
		u.latest = 0
	}
	a.shorten()
}

// shorten takes users with nothing to write off the list.
func (a *Activity) shorten() {
	a.waiting = slices.DeleteFunc(a.waiting, func(user string) bool { return a.users[user].latest == 0 })
	a.metrics.waiting.Set(float64(len(a.waiting)))
}

// setApart has a company wait apart from the others. Where such companies leave others too little room, its users are dropped.
func (a *Activity) setApart(company string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apart[company] = true
	if !a.crowded(company) {
		return
	}
	for _, user := range a.waiting {
		if u := a.users[user]; u.company == company {
			u.latest = 0
			a.metrics.dropped.Inc()
		}
	}
	a.shorten()
}

// crowded reports whether a company waits apart and so much waits that there is no room for more of it.
func (a *Activity) crowded(company string) bool {
	return a.apart[company] && len(a.waiting) >= max(1, a.cfg.Users/2)
}

// rejoin has a company of which nothing waits any more, if there is one, written together with the others again.
func (a *Activity) rejoin(company string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.apart, company)
}
