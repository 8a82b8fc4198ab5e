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
	// blindAfter is how long the feed may be unread before the log says so.
	blindAfter = 30 * time.Second
	// reachSlack is how much less than FeedReach is relied on: rows are aged by Postgres' clock, entries by ours.
	reachSlack = 5 * time.Minute
)

// A follower reads the change feed. It belongs to one Run.
type follower struct {
	d           *Directory
	invalidator *invalidator
	position    Position
	began       time.Time // when the read of the feed that is under way began, over all its pages; zero: none is
	read        time.Time // when the last one began that came to the feed's end; zero: none did
	begun       time.Time // when the feed was begun at its beginning, while it has not come to its end since
	blind       bool      // whether that has been logged
}

// Run follows the changes of users and companies until ctx is done, and then returns nil. While the feed can't be read,
// look-ups are answered as before, from entries that may be stale.
func (d *Directory) Run(ctx context.Context) error {
	f := &follower{d: d, invalidator: newInvalidator(d)}
	var writing sync.WaitGroup
	defer writing.Wait()
	// Beside the polls: a Dragonfly that hangs must not hold them up.
	writing.Go(func() { f.invalidator.run(ctx) })
	writing.Go(func() { d.showUses(ctx) })
	writing.Go(func() { d.askApplied(ctx) })
	poll := time.NewTicker(d.config.PollInterval)
	defer poll.Stop()
	sweep := time.NewTicker(d.config.Life)
	defer sweep.Stop()
	atOnce := make(chan time.Time)
	close(atOnce)
	for {
		next := poll.C
		if f.poll(ctx) {
			next = atOnce
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		case <-sweep.C:
			d.users.rotate()
			d.configs.rotate()
			d.periods.rotate()
			d.unknown.rotate()
			d.outside.rotate()
		}
	}
}

// poll reads a page of the feed, and reports whether there are more.
func (f *follower) poll(ctx context.Context) (more bool) {
	d := f.d
	began := time.Now()
	// Rows that old may have been removed unread. By both clocks: one stands still while the machine is suspended, the
	// other may be set back.
	unread := max(began.Sub(f.read), began.Round(0).Sub(f.read.Round(0)))
	if f.begun.IsZero() && unread > FeedReach-reachSlack {
		f.position = ""
	}
	if f.began.IsZero() {
		f.began = began
	}
	limited, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	page, err := d.config.Loader.Changes(limited, f.position)
	if err != nil {
		if ctx.Err() == nil {
			f.failed(ctx, err)
		}
		return false
	}
	if page.Begun {
		if f.position != "" {
			d.log.LogAttrs(ctx, slog.LevelWarn, "Postgres was restarted, or another server has taken over; nothing that was cached before is used",
				slog.String("origin", page.Origin))
		}
		f.begun, f.began = began, began
		d.known.begin(page.Origin, began)
		d.applied.doubt()
		f.invalidator.begin(page.Origin)
	}
	users, companies := d.known.note(page.Changes, time.Now())
	d.metrics.changes.Add(float64(len(users) + len(companies)))
	f.invalidator.add(users, companies)
	f.position = page.Next
	if page.More {
		return true
	}
	if !f.begun.IsZero() {
		since := f.begun.Add(-FeedReach + reachSlack)
		if time.Since(f.begun) > reachSlack {
			since = f.begun // the oldest rows may have been removed before their page was read
		}
		d.known.cover(since)
		f.begun = time.Time{}
	}
	f.read, f.began = f.began, time.Time{}
	d.lastRead.Store(int64(f.read.Sub(d.started)))
	d.applied.readFrom(f.read)
	if f.blind {
		f.blind = false
		d.log.LogAttrs(ctx, slog.LevelInfo, "the change feed of users and companies is read again", slog.Int("changes", len(page.Changes)))
	}
	return false
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
