package replay

import (
	"context"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/kafka"
	"tenantflow/internal/retry"
	"tenantflow/internal/totals"
)

// LagConfig is what a LagBrake needs.
type LagConfig struct {
	Client *kafkago.Client
	Topic  string // with its prefix
	Group  string // whose lag counts

	// MaxLag is from which lag on nothing is published. It goes on below half of it. Default: DefaultMaxLag.
	MaxLag time.Duration
	// Batching is how long the group lets events wait for their batch. So long they are not behind.
	Batching time.Duration
}

// A LagBrake pauses a replay while the consumer group is behind: live events come first.
//
// The lag is measured by one clock, this process's, and from the log alone: the ends of the partitions are noted now and then,
// and the group is as far behind as the newest note whose ends it has reached is old, less the time that events may wait for
// their batch. What the group has read, and begun to store, counts as reached.
//
// At the beginning nothing is known: then the lag counts from the first note.
//
// What is published is seen in the lag only a batch later. So not more than a window of events is under way to the group at any
// time, as in TCP: twice as many with each round trip at first, a tenth more later, fewer while the lag is above half of what it may be.
type LagBrake struct {
	cfg   LagConfig
	notes []note // by time; of those that are reached, only the newest
	last  time.Time
	lag   time.Duration
	shut  bool

	published int64         // events that were let through
	window    int64         // how many of them may be under way
	grown     bool          // the window was once wide enough
	full      bool          // an event had to wait for it since it was changed
	peak      time.Duration // the largest lag since then
	changed   time.Time
}

// A note is where the partitions ended at a moment.
type note struct {
	at        time.Time
	ends      map[int]int64
	published int64 // before it
}

const (
	// lookEvery is how often the brake looks.
	lookEvery = 200 * time.Millisecond
	// leastWindow is how many events may be under way at first, and at least.
	leastWindow = 2 * portion
	mostWindow  = 1 << 30
)

// NewLagBrake makes a brake.
func NewLagBrake(cfg LagConfig) *LagBrake {
	if cfg.MaxLag == 0 {
		cfg.MaxLag = DefaultMaxLag
	}
	return &LagBrake{cfg: cfg, window: leastWindow}
}

// Wait implements Brake. Errors are transient.
func (b *LagBrake) Wait(ctx context.Context, n int, waiting func(string)) error {
	for {
		if time.Since(b.last) >= lookEvery {
			if err := b.look(ctx); err != nil {
				return err
			}
		}
		if !b.shut && b.fits(n) {
			b.published += int64(n)
			return nil
		}
		if b.shut {
			waiting(fmt.Sprintf("the group %s is %s behind, and may be %s (--max-lag): live events come first", b.cfg.Group, b.lag.Round(100*time.Millisecond), b.cfg.MaxLag))
		}
		if err := retry.Pause(ctx, time.Until(b.last.Add(lookEvery))); err != nil {
			return err
		}
	}
}

// fits reports whether the window has room for n more events.
func (b *LagBrake) fits(n int) bool {
	underWay := b.published - b.notes[0].published
	if underWay == 0 || underWay+int64(n) <= b.window {
		return true
	}
	b.full = true
	return false
}

// Lag is how far the group was behind at the last look.
func (b *LagBrake) Lag() time.Duration { return b.lag }

// look measures the lag.
func (b *LagBrake) look(ctx context.Context) error {
	now := time.Now()
	logs, err := kafka.Ends(ctx, b.cfg.Client, b.cfg.Topic)
	if err != nil {
		return err
	}
	positions, _, err := totals.ReadPositions(ctx, b.cfg.Client, b.cfg.Group, b.cfg.Topic)
	if err != nil {
		return err
	}
	taken := map[int]int64{}
	for _, p := range positions {
		taken[p.Partition] = max(p.Committed, p.PendingTo)
	}
	ends := make(map[int]int64, len(logs))
	for id, r := range logs {
		if ends[id] = r.To; r.To == r.From {
			taken[id] = max(taken[id], r.To) // an empty log has no offset to commit
		}
	}
	b.notes = append(b.notes, note{now, ends, b.published})
	b.measure(now, taken)
	b.last = now
	return nil
}

// measure finds the newest note whose ends are reached.
func (b *LagBrake) measure(now time.Time, taken map[int]int64) {
	since := b.notes[0].at
	for i := len(b.notes) - 1; i >= 0; i-- {
		if reached(b.notes[i].ends, taken) {
			since = b.notes[i].at
			b.notes = b.notes[i:]
			break
		}
	}
	b.lag = max(0, now.Sub(since)-b.cfg.Batching)
	switch {
	case b.lag > b.cfg.MaxLag:
		b.shut = true
	case b.lag <= b.cfg.MaxLag/2:
		b.shut = false
	}
	if b.peak = max(b.peak, b.lag); since.After(b.changed) { // the group has had what was let through by the present window
		b.turn(now)
	}
	const most = 4096 // fourteen minutes of notes; beyond, every second one says enough
	if len(b.notes) > most {
		kept := b.notes[:0]
		for i, n := range b.notes {
			if i == 0 || i == len(b.notes)-1 || i%2 == 1 {
				kept = append(kept, n)
			}
		}
		b.notes = kept
	}
}

// turn widens or narrows the window.
func (b *LagBrake) turn(now time.Time) {
	switch {
	case b.peak > b.cfg.MaxLag/2:
		b.window, b.grown = max(leastWindow, b.window*3/4), true
	case b.peak > b.cfg.MaxLag/4 || !b.full: // as it should be, or not used
	case b.grown:
		b.window += b.window / 10
	default:
		b.window = min(2*b.window, mostWindow)
	}
	b.full, b.peak, b.changed = false, 0, now
}

// reached reports whether everything before some ends was taken.
func reached(ends, taken map[int]int64) bool {
	for id, end := range ends {
		if taken[id] < end {
			return false
		}
	}
	return true
}
