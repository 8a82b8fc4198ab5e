package directory

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// showEvery is how often a user's quota block is written at most: often enough that one who goes on is never without a block,
	// whose age is bounded by QuotaAge, and seldom enough to cost the store next to nothing.
	showEvery = 5 * time.Minute
	// maxShown bounds the blocks that wait to be written. Those beyond wait for the user's next events.
	maxShown = 20_000
	// showAtOnce is how many blocks one request to Dragonfly writes.
	showAtOnce = 200
)

// A Use is what a user has used of a UTC day, as it was just counted.
type Use struct {
	User                 string
	Day                  time.Time
	APICalls, DataPoints int64
}

// shower writes quota blocks into the subscriptions that Dragonfly holds.
type shower struct {
	mu   sync.Mutex
	wait []shown
	wake chan struct{} // holds one element while something waits
}

type shown struct {
	entry *entry[Subscription]
	block QuotaBlock
}

// ShowUse has the uses written into the cached subscriptions of their users, as the quota block that other services read. It takes
// what the process holds of the users, asks no store and waits for nothing; a consumer calls it for every user and batch, and all
// but one call in five minutes for a user cost a look into memory. Uses of another day than today, of users that the process does not
// hold, and those that Dragonfly does not take are left out: the next ones will do.
func (d *Directory) ShowUse(uses []Use) {
	if d.config.Cache == nil {
		return
	}
	now, today := d.now(), time.Now().UTC()
	midnight, date := today.Truncate(24*time.Hour), today.Format(time.DateOnly)
	var ready []shown
	for _, u := range uses {
		e := usable(d, d.users.get(u.User), now)
		if e == nil || e.value.former() || !u.Day.UTC().Truncate(24*time.Hour).Equal(midnight) {
			continue
		}
		if last := e.shown.Load(); last != 0 && now-last < int64(showEvery) || !e.shown.CompareAndSwap(last, now) {
			continue
		}
		ready = append(ready, shown{e, QuotaBlock{Date: date, APICalls: u.APICalls, DataPoints: u.DataPoints,
			DailyLimit: e.value.Limits.DailyAPICalls, AsOf: today}})
	}
	if len(ready) == 0 {
		return
	}
	d.show.mu.Lock()
	defer d.show.mu.Unlock()
	room := min(maxShown-len(d.show.wait), len(ready))
	d.show.wait = append(d.show.wait, ready[:room]...)
	for _, s := range ready[room:] {
		s.entry.shown.Store(0)
	}
	select {
	case d.show.wake <- struct{}{}:
	default:
	}
}

// showUses writes the blocks that wait, until ctx is done.
func (d *Directory) showUses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.show.wake:
		}
		for {
			d.show.mu.Lock()
			n := min(len(d.show.wait), showAtOnce)
			page := d.show.wait[:n:n]
			if d.show.wait = d.show.wait[n:]; len(d.show.wait) == 0 {
				d.show.wait = nil
			}
			d.show.mu.Unlock()
			if n == 0 {
				break
			}
			d.showPage(ctx, page)
		}
	}
}

func (d *Directory) showPage(ctx context.Context, page []shown) {
	subs := make([]*Subscription, 0, len(page))
	for _, s := range page {
		if usable(d, s.entry, d.now()) == nil {
			continue // its next entry gets a block of its own
		}
		with := *s.entry.value
		with.Quota = s.block
		subs = append(subs, &with)
	}
	err := d.askCache(ctx, func(ctx context.Context) error {
		_, err := d.config.Cache.PutSubscriptions(ctx, subs)
		return err
	})
	if err == nil {
		return
	}
	for _, s := range page {
		s.entry.shown.Store(0)
	}
	d.log.LogAttrs(ctx, slog.LevelDebug, "quota blocks of cached subscriptions are not written", slog.Int("users", len(page)), slog.Any("error", err))
}
