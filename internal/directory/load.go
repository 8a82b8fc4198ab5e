package directory

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// A flight is a user being loaded. However many ask for the user meanwhile, they share it.
type flight struct {
	user string
	done chan struct{} // closed when sub and err are set
	sub  *Subscription // nil: there is no such user
	err  error
}

// wait returns what the flight brings.
func (f *flight) wait(ctx context.Context) (*Subscription, error) {
	select {
	case <-f.done:
		return f.sub, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// reloads is how often something is loaded again because it changed meanwhile. After that it is used once and not kept:
// a caller that changes it four times within a load can't ask for the very last state.
const reloads = 3

// doubtfulLife is how long the process answers with an entry of Dragonfly that may be old, while Postgres is away.
const doubtfulLife = time.Second

// join returns the flights of the users at the given indexes, and has those begun that are not under way. A few workers
// take what is waiting, all of it in one query; while they are busy, more comes together.
func (d *Directory) join(users []string, indexes []int) []*flight {
	joined := make([]*flight, len(indexes))
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, index := range indexes {
		f := d.flights[users[index]]
		if f == nil {
			// A copy: the string may be a piece of a whole batch of messages.
			f = &flight{user: strings.Clone(users[index]), done: make(chan struct{})}
			if d.closed {
				f.err = errClosed
				close(f.done)
			} else {
				d.flights[f.user] = f
				d.pending = append(d.pending, f)
			}
		}
		joined[i] = f
	}
	wanted := (len(d.pending) + d.config.LoadUsers - 1) / d.config.LoadUsers
	for ; wanted > 0 && d.workers < d.config.Loads; wanted-- {
		d.workers++
		d.loads.Add(1)
		go d.work()
	}
	return joined
}

// work loads pending users until there are none.
func (d *Directory) work() {
	defer d.loads.Done()
	for {
		d.mu.Lock()
		n := min(len(d.pending), d.config.LoadUsers)
		if n == 0 {
			d.pending = nil
			d.workers--
			d.mu.Unlock()
			return
		}
		batch := d.pending[:n:n]
		d.pending = d.pending[n:]
		d.mu.Unlock()
		d.load(batch)
	}
}

// land ends a flight.
func (d *Directory) land(f *flight, sub *Subscription, err error, by string) {
	f.sub, f.err = sub, err
	d.metrics.lookups.WithLabelValues(by).Inc()
	d.mu.Lock()
	delete(d.flights, f.user)
	d.mu.Unlock()
	close(f.done)
}

// keep puts a subscription into the process' memory. Life is spread a little, so that what was loaded together is not
// missing together.
func (d *Directory) keep(s *Subscription, epoch uint64, life time.Duration) {
	life -= rand.N(max(life/4, 1))
	e := &entry[Subscription]{value: s, company: s.CompanyID, user: s.UserID, expires: d.now() + int64(life)}
	e.seen.Store(epoch)
	d.users.put(s.UserID, e)
}

// load brings a batch of flights down: from Dragonfly the entries that are current, the rest from Postgres.
func (d *Directory) load(batch []*flight) {
	left, doubtful := d.loadCached(batch)
	for try := 0; len(left) > 0; try++ {
		// Before the query begins: what the feed reports from here on may be missing in its answer.
		epoch, began := d.known.epoch.Load(), time.Now().UTC()
		found, err := d.query(left)
		if err != nil {
			for _, f := range left {
				// Of what is not known to be old, something is better than nothing.
				if s := doubtful[f.user]; s != nil {
					d.keep(s, epoch, doubtfulLife)
					d.land(f, s, nil, byDragonfly)
				} else {
					d.land(f, nil, err, byNone)
				}
			}
			return
		}
		certain := make([]*Subscription, 0, len(found))
		for _, s := range found {
			if d.date(s, epoch, began) && !s.former() { // what Dragonfly holds is of users who belong to a company
				certain = append(certain, s)
			}
		}
		newer, last := d.putCached(certain), try == reloads
		if last {
			d.overrule(newer)
		}
		left = d.settle(left, found, epoch, newer, last)
	}
}

// date gives a subscription from Postgres the time and the version of its load, and reports whether it is certain that no change was
// reported since the load began.
func (d *Directory) date(s *Subscription, epoch uint64, began time.Time) bool {
	s.CachedAt, s.Quota = began, QuotaBlock{}
	// In this order: a change reported since the query began may be missing in the rows, which must not get its
	// version. Others would take them for what came after it.
	newest := d.known.newestOf(s.CompanyID, s.UserID)
	if !d.known.from(s.Origin) || d.known.changedSince(s.CompanyID, s.UserID, epoch) {
		return false
	}
	s.Version = max(s.Version, newest)
	return true
}

// anyVersion is newer than every version.
const anyVersion = math.MaxInt64 / 2

// overrule deletes entries from Dragonfly that are newer than what Postgres keeps saying. Postgres is right: it was
// restored from a backup, or another program has written them. The next load can store its own.
func (d *Directory) overrule(newer map[string]bool) {
	if len(newer) == 0 {
		return
	}
	users := make(map[string]int64, len(newer))
	for user := range newer {
		users[user] = anyVersion
	}
	_ = d.askCache(d.ctx, func(ctx context.Context) error { return d.config.Cache.Invalidate(ctx, users, nil, d.known.source()) })
}

// loadCached lands the flights that Dragonfly has a current entry for. Of the others it also returns the entries that
// may be current.
func (d *Directory) loadCached(batch []*flight) (left []*flight, doubtful map[string]*Subscription) {
	epoch := d.known.epoch.Load()
	users := make([]string, len(batch))
	for i, f := range batch {
		users[i] = f.user
	}
	var cached []*Subscription
	err := d.askCache(d.ctx, func(ctx context.Context) (err error) {
		cached, err = d.config.Cache.Subscriptions(ctx, users)
		return err
	})
	if err != nil {
		return batch, nil
	}
	doubtful = map[string]*Subscription{}
	for i, f := range batch {
		s := cached[i]
		if s == nil {
			left = append(left, f)
			continue
		}
		switch d.known.judge(s.CompanyID, s.UserID, vintage{s.Version, s.CachedAt, s.Origin}) {
		case current:
			// What the process keeps must not outlive what Dragonfly keeps.
			life := min(d.config.Life, s.Left())
			s.Quota = QuotaBlock{} // it is for programs that read the keys
			d.keep(s, epoch, life)
			d.land(f, s, nil, byDragonfly)
		case unsure:
			doubtful[f.user] = s
			left = append(left, f)
		case outdated:
			left = append(left, f)
		}
	}
	return left, doubtful
}

// query asks Postgres for users, and returns those it knows.
func (d *Directory) query(flights []*flight) (map[string]*Subscription, error) {
	ids := make([]string, len(flights))
	for i, f := range flights {
		ids[i] = f.user
	}
	var rows []Subscription
	err := d.askPostgres(d.ctx, func(ctx context.Context) (err error) {
		rows, err = d.config.Loader.Users(ctx, ids)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load %d users: %w", len(ids), err)
	}
	found := make(map[string]*Subscription, len(rows))
	for i := range rows {
		found[rows[i].UserID] = &rows[i]
	}
	return found, nil
}

// putCached puts subscriptions into Dragonfly, and returns the users of whom it holds something newer.
func (d *Directory) putCached(subs []*Subscription) map[string]bool {
	if len(subs) == 0 {
		return nil
	}
	var refused []int
	// Without Dragonfly nothing is refused: then no process has a newer one there either.
	_ = d.askCache(d.ctx, func(ctx context.Context) (err error) {
		refused, err = d.config.Cache.PutSubscriptions(ctx, subs)
		return err
	})
	newer := make(map[string]bool, len(refused))
	for _, i := range refused {
		newer[subs[i].UserID] = true
	}
	return newer
}

// settle lands the flights whose answer from Postgres is certain, and returns those that must be loaded again, because
// something was changed after the load had begun, or another server has answered than the one whose feed is followed. The last time
// all are landed.
func (d *Directory) settle(flights []*flight, found map[string]*Subscription, epoch uint64, newer map[string]bool, last bool) (again []*flight) {
	for _, f := range flights {
		s := found[f.user]
		company, astray := "", false
		if s != nil {
			company, astray = s.CompanyID, !d.known.from(s.Origin)
		}
		doubt := astray || newer[f.user] || d.known.changedSince(company, f.user, epoch)
		switch {
		case doubt && !last:
			d.metrics.reloads.Inc()
			again = append(again, f)
			continue
		case doubt: // used, not kept
		case s == nil:
			d.rememberUnknown(f.user, f.user, "", epoch)
		default:
			d.keep(s, epoch, min(d.config.Life, s.Left()))
		}
		d.land(f, s, nil, byPostgres)
	}
	return again
}
