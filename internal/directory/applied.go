package directory

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// appliedEvery is how often it is asked how far company events are applied.
const appliedEvery = time.Second

// applied is how far company events are known to be applied.
type applied struct {
	mu      sync.Mutex
	next    time.Time // it will be through when a read of the feed has come to its end that began after asked; zero: none waits
	asked   time.Time
	through time.Time
}

// AppliedThrough returns a time for which the answers that begin now include every company event whose record is not newer: who belongs
// to a company, and who did, is then final for usage of up to that time, and not only what is known so far. It lags some seconds behind.
// Zero: nothing can be said. Where nothing says how far company events are applied (Config.Applied), what Postgres holds is all there is: it
// is AsOf.
func (d *Directory) AppliedThrough() time.Time {
	if d.config.Applied == nil {
		return d.AsOf()
	}
	d.applied.mu.Lock()
	defer d.applied.mu.Unlock()
	return d.applied.through
}

// askApplied asks now and then how far company events are applied, until ctx is done.
func (d *Directory) askApplied(ctx context.Context) {
	if d.config.Applied == nil {
		return
	}
	tick := time.NewTicker(appliedEvery)
	defer tick.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, pollTimeout)
		through, err := d.config.Applied(limited)
		cancel()
		if err != nil {
			d.log.LogAttrs(ctx, slog.LevelDebug, "it is not known how far company events are applied", slog.Any("error", err))
		} else {
			d.applied.hear(through)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// hear takes a time through which company events are in Postgres. The next read of the feed that begins brings them into the answers.
func (a *applied) hear(through time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next.IsZero() && through.After(a.through) {
		a.next, a.asked = through, time.Now()
	}
}

// readFrom notes that the feed was read to its end, and when that read began.
func (a *applied) readFrom(began time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.next.IsZero() && began.After(a.asked) {
		a.through, a.next = a.next, time.Time{}
	}
}

// doubt takes it all back: another server may not have what was applied on the one before.
func (a *applied) doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.through, a.next = time.Time{}, time.Time{}
}
