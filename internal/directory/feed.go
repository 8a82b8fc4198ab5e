package directory

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// pollTimeout bounds one read of the change feed.
	pollTimeout = 10 * time.Second
	// blindAfter is how long the feed may be unread before somebody is told.
	blindAfter = 30 * time.Second
	// reachSlack is how much less than FeedReach is relied on: rows are aged by Postgres' clock, entries by ours.
	reachSlack = 5 * time.Minute
)

// A follower reads the change feed. It belongs to one Run.
type follower struct {
	d           *Directory
	invalidator *invalidator
	position    Position
	read        time.Time // when the last good read began; zero: never
	blind       bool      // whether that has been logged
}

// Run follows the changes of users and companies until ctx is done, and then returns nil. While the feed can't be read,
// look-ups are answered as before, from entries that may be old.
func (d *Directory) Run(ctx context.Context) error {
	f := &follower{d: d, invalidator: newInvalidator(d)}
	var invalidating sync.WaitGroup
	defer invalidating.Wait()
	// Beside the polls: a Dragonfly that hangs must not make anybody blind.
	invalidating.Go(func() { f.invalidator.run(ctx) })
	poll := time.NewTicker(d.config.PollInterval)
	defer poll.Stop()
	sweep := time.NewTicker(d.config.Life)
	defer sweep.Stop()
	for {
		f.poll(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-sweep.C:
			d.users.rotate()
			d.configs.rotate()
			d.periods.rotate()
			d.unknown.rotate()
		}
	}
}

// poll reads the feed once.
func (f *follower) poll(ctx context.Context) {
	d := f.d
	began := time.Now()
	since := f.position
	// Rows that old may have been removed unread. By both clocks: one stands still while the machine is suspended, the
	// other may be set back.
	unread := max(began.Sub(f.read), began.Round(0).Sub(f.read.Round(0)))
	fresh := f.read.IsZero() || unread > FeedReach-reachSlack
	if fresh {
		since = 0
	}
	limited, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	changes, position, err := d.config.Loader.Changes(limited, since)
	if err != nil {
		if ctx.Err() == nil {
			f.failed(ctx, err)
		}
		return
	}
	var everythingSince time.Time
	switch {
	case fresh:
		everythingSince = began.Add(-FeedReach + reachSlack)
	case position < since:
		// Another database, or an older state of this one: versions and times of before say nothing about it.
		everythingSince = began
		d.log.LogAttrs(ctx, slog.LevelWarn, "the change feed has gone back; nothing that was cached before is used")
	}
	users, companies := d.known.tell(changes, everythingSince, time.Now())
	d.metrics.changes.Add(float64(len(users) + len(companies)))
	f.invalidator.add(users, companies)
	f.position, f.read = position, began
	d.lastRead.Store(int64(began.Sub(d.started)))
	if f.blind {
		f.blind = false
		d.log.LogAttrs(ctx, slog.LevelInfo, "the change feed of users and companies is read again", slog.Int("changes", len(changes)))
	}
}

func (f *follower) failed(ctx context.Context, err error) {
	d := f.d
	d.metrics.errors.WithLabelValues(byFeed).Inc()
	age := d.FeedAge()
	if age < blindAfter || f.blind {
		return
	}
	f.blind = true
	d.log.LogAttrs(ctx, slog.LevelWarn, "the change feed of users and companies can't be read; changes since then are not seen",
		slog.Time("since", time.Now().Add(-age)), slog.Any("error", err))
}
