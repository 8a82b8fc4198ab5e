package consumers

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"tenantflow/internal/directory"
	"tenantflow/internal/kafka"
)

// An event under another company than its user's is refused only when company events are applied up to its record: the one that gives
// the user to that company may still be on its way. Until then the user's day is put off. Its events, of this batch and of later ones, wait
// in memory, and its watermark stays; all other users are counted as ever. The progress stays before the first event that waits, so the
// next owner of the partition reads it again, and finds the others known.
//
// What waits is bounded in time and in number. Beyond that an event counts: company events that are not applied must not stop quotas.

// sayUndecided is how often the log says that events were counted undecided.
const sayUndecided = 10 * time.Second

// A deferral is what was put off in a partition.
type deferral struct {
	days   map[userDay]*deferredDay
	events int
	said   time.Time // when the log last said that events were counted undecided
}

type userDay struct {
	user string
	day  int64 // since the Unix epoch
}

// A deferredDay is the events of a user's day that wait, in the order of their offsets: all that the partition has had since the first.
type deferredDay struct {
	userDay
	entries []deferredEntry
	decided int // of the entries, from the first; while they are being decided
}

type deferredEntry struct {
	quotaEntry
	company string
	since   time.Time // when it was put off
	named   string    // the reservation it names; empty: none
}

// first is the offset of the first event that waits.
func (d *deferral) first() int64 {
	first := int64(-1)
	for _, day := range d.days {
		if offset := day.entries[0].offset; first < 0 || offset < first {
			first = offset
		}
	}
	return first
}

// putOff puts off the events of a user and day, if one of them is undecided or if earlier ones wait, and reports whether it has.
func (p *quotaPartition) putOff(b *quotaBatch, head *quotaGroup) bool {
	key := userDay{head.user, head.day}
	d := p.deferred.days[key]
	if d == nil {
		if !p.undecided(b, head) {
			return false
		}
		if p.deferred.days == nil {
			p.deferred.days = map[userDay]*deferredDay{}
		}
		d = &deferredDay{userDay: key}
		p.deferred.days[key] = d
	}
	before, now := len(d.entries), time.Now()
	for g := head; ; g = &b.groups[g.sibling] {
		for at := g.first; at >= 0; at = b.entries[at].next {
			d.entries = append(d.entries, deferredEntry{b.entries[at], g.company, now, b.named[b.entries[at].offset]})
		}
		if g.sibling < 0 {
			break
		}
	}
	slices.SortFunc(d.entries[before:], func(x, y deferredEntry) int { return int(x.offset - y.offset) })
	p.deferred.events += len(d.entries) - before
	return true
}

// undecided reports whether an event of a user and day can't be judged yet.
func (p *quotaPartition) undecided(b *quotaBatch, head *quotaGroup) bool {
	for g := head; ; g = &b.groups[g.sibling] {
		if sub := p.known[g.place]; !plain(g, sub) {
			for at := g.first; at >= 0; at = b.entries[at].next {
				if p.verdict(sub, g.company, g.day, &b.entries[at]) == undecided {
					return true
				}
			}
		}
		if g.sibling < 0 {
			return false
		}
	}
}

// settleDeferred judges again what was put off, and counts or refuses of each user's day what lies before the first event that can't be judged
// yet. Everything before next is counted but for that.
func (p *quotaPartition) settleDeferred(ctx context.Context) error {
	if len(p.deferred.days) == 0 {
		return nil
	}
	days := make([]*deferredDay, 0, len(p.deferred.days))
	for _, d := range p.deferred.days {
		days = append(days, d)
	}
	excess := p.deferred.events - p.quota.cfg.DeferEvents
	if excess > 0 { // at the cost of those who have most of it
		slices.SortFunc(days, func(x, y *deferredDay) int { return len(y.entries) - len(x.entries) })
	}
	p.users = p.users[:0]
	for _, d := range days {
		p.users = append(p.users, d.user)
	}
	if err := p.resolve(ctx); err != nil {
		return err
	}
	claims := map[int64]bool{}
	settled, guessed := 0, 0
	for i, d := range days {
		guessed += p.decide(d, p.known[i], excess > settled, claims)
		settled += d.decided
	}
	defer func() { p.quota.metrics.deferred.WithLabelValues(p.label()).Set(float64(p.deferred.events)) }()
	if settled == 0 {
		return nil
	}
	if guessed > 0 {
		p.sayGuessed(ctx, guessed)
	}
	if err := p.refuse(ctx, claims); err != nil {
		return err
	}
	counting := p.deferredCalls(days, claims)
	if err := p.insist(ctx, func() error { return p.tryDeferred(ctx, counting, claims) }); err != nil {
		return err
	}
	p.quota.metrics.count(&quotaBatch{}, p.calls, p.counted, len(claims))
	for _, d := range days {
		if d.entries = slices.Delete(d.entries, 0, d.decided); len(d.entries) == 0 {
			delete(p.deferred.days, d.userDay)
		}
	}
	p.deferred.events -= settled
	return nil
}

// decide judges the entries of a day up to the first that is undecided, and returns how many of them count although they are: by force, or
// because they have waited for long enough.
func (p *quotaPartition) decide(d *deferredDay, sub *directory.Subscription, force bool, claims map[int64]bool) (guessed int) {
	for d.decided = 0; d.decided < len(d.entries); d.decided++ {
		e := &d.entries[d.decided]
		switch p.verdict(sub, e.company, d.day, &e.quotaEntry) {
		case counts:
		case refused:
			claims[e.offset] = e.void == 0
		case undecided:
			if !force && time.Since(e.since) < p.quota.cfg.DeferFor {
				return guessed
			}
			guessed++
		}
	}
	return guessed
}

// counting gives the decided entries that count.
func (d *deferredDay) counting(claims map[int64]bool, into []quotaEntry) []quotaEntry {
	into = into[:0]
	for i := range d.entries[:d.decided] {
		if _, no := claims[d.entries[i].offset]; !no {
			into = append(into, d.entries[i].quotaEntry)
		}
	}
	return into
}

// deferredCalls makes a call of each day that something was decided of, and returns those days. known must be of the days' users.
func (p *quotaPartition) deferredCalls(days []*deferredDay, claims map[int64]bool) []*deferredDay {
	p.calls, p.named = p.calls[:0], map[int64]string{}
	var called []*deferredDay
	for i, d := range days {
		if d.decided == 0 {
			continue
		}
		p.entries = d.counting(claims, p.entries)
		for _, e := range d.entries[:d.decided] {
			if e.named != "" {
				p.named[e.offset] = e.named
			}
		}
		call, _ := p.call(d.user, d.day, p.known[i], nil)
		call.From = d.entries[0].offset
		p.calls, called = append(p.calls, call), append(called, d)
	}
	return called
}

// tryDeferred makes the calls of days that were put off, and publishes what is due. It may be repeated.
func (p *quotaPartition) tryDeferred(ctx context.Context, days []*deferredDay, claims map[int64]bool) error {
	p.counted = p.counted[:0]
	if err := p.lookForPast(ctx); err != nil {
		return err
	}
	for i := 0; i < len(days); {
		to := p.decidedTo(days[i])
		upTo := i + 1
		for upTo < len(days) && p.decidedTo(days[upTo]) == to {
			upTo++
		}
		err := p.count(ctx, kafka.Range{To: to}, upTo, func(i int) []quotaEntry { return days[i].counting(claims, p.entries) })
		if err != nil {
			return err
		}
		i = upTo
	}
	return p.finish(ctx)
}

// decidedTo is where the range ends of which all events of a day are decided.
func (p *quotaPartition) decidedTo(d *deferredDay) int64 {
	if d.decided < len(d.entries) {
		return d.entries[d.decided].offset
	}
	return p.next
}

func (p *quotaPartition) sayGuessed(ctx context.Context, events int) {
	p.quota.metrics.undecided.Add(float64(events))
	if time.Since(p.deferred.said) < sayUndecided {
		return
	}
	p.deferred.said = time.Now()
	p.Logger().WarnContext(ctx, "events under another company than their user's are counted: company events are not applied up to them yet, or too many of them wait",
		slog.Int("events", events), slog.Time("applied_through", p.through))
}
