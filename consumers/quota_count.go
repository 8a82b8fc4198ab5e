package consumers

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/dragonfly"
)

// membershipMargin is how far apart what is done to a membership and what is known of it may be: Postgres dates it before its transaction is
// committed, the directory polls every quarter of a second, and Postgres, the brokers and this process have a clock each. Within it both
// verdicts may have been given, so the event counts; it is short because a claim that is wrong counts then, too.
const membershipMargin = time.Second

// A verdict says what becomes of an event.
type verdict int

const (
	counts verdict = iota
	refused
	undecided // refused by what is known, but company events that were published before it may say otherwise
)

// verdict judges an event by the company its user belonged to at the event's own time. It goes by the log and by what Postgres recorded, never
// by the clock of counting, so that a recount comes to the same: what takes the user from the company does not count against a record that
// is older than it, or so little newer that it may have been counted before that was visible.
func (p *quotaPartition) verdict(sub *directory.Subscription, company string, day int64, e *quotaEntry) verdict {
	begins := day * dayMillis
	at, recorded := time.UnixMilli(begins+int64(e.at)), time.UnixMilli(begins+int64(e.recorded))
	switch {
	case sub.BelongedTo(company, at, recorded.Add(-membershipMargin)) != directory.BelongsElsewhere:
		return counts
	case p.through.Before(recorded.Add(membershipMargin)):
		return undecided
	}
	return refused
}

// plain reports whether all events of a group count, without a look at each.
func plain(g *quotaGroup, sub *directory.Subscription) bool {
	return sub == nil || sub.BelongsSince(g.company, time.UnixMilli(g.oldest))
}

// judge makes calls of the groups of a batch, and returns the offsets of events that claim a user who belonged to another company, and
// whether they become dead letters: the void of such an event does not, it has nothing to take back.
// Users' days of which that can't be said yet are put off.
func (p *quotaPartition) judge(ctx context.Context, b *quotaBatch) (map[int64]bool, error) {
	p.users = p.users[:0]
	for i := range b.groups {
		p.users = append(p.users, b.groups[i].user)
	}
	if err := p.resolve(ctx); err != nil {
		return nil, err
	}
	claims := map[int64]bool{}
	p.calls, p.heads, p.named = p.calls[:0], p.heads[:0], b.named
	// The counter of such a day has expired, by whatever clock.
	const clocks = time.Hour
	expired := time.Now().Add(-clocks).UnixMilli() - p.lateness
	var offsets []int64
	for i := range b.groups {
		g := &b.groups[i]
		if !g.head || p.putOff(b, g) {
			continue
		}
		p.entries = p.accepted(b, g, p.entries, claims)
		if (g.day+1)*dayMillis < expired {
			b.late += len(p.entries)
			continue
		}
		var call dragonfly.Call
		call, offsets = p.call(g.user, g.day, p.known[i], offsets)
		p.calls, p.heads = append(p.calls, call), append(p.heads, int32(i)) // #nosec G115 -- a batch holds far fewer than 2^31
	}
	return claims, nil
}

// call makes the call that counts the entries at hand, with their offsets where they are needed. Where all events were refused there are none:
// an earlier epoch may have counted them, and only a call takes them out again.
func (p *quotaPartition) call(user string, day int64, sub *directory.Subscription, offsets []int64) (dragonfly.Call, []int64) {
	date := time.UnixMilli(day * dayMillis).UTC()
	call := dragonfly.Call{User: user, Day: date, Mode: p.mode(date)}
	call.Limit, call.Thresholds = p.quota.limit(sub)
	offsets = p.tally(&call, offsets)
	return call, offsets
}

// reservations gives those that the entries at hand name, each once.
func (p *quotaPartition) reservations() []string {
	if len(p.named) == 0 {
		return nil
	}
	var ids []string
	for i := range p.entries {
		if id, ok := p.named[p.entries[i].offset]; ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// tally puts the entries at hand into a call, and their offsets behind others, where they are wanted.
func (p *quotaPartition) tally(call *dragonfly.Call, offsets []int64) []int64 {
	begins, wanted := len(offsets), call.Thresholds != nil
	call.Events, call.Points, call.Voids, call.Holds = 0, 0, nil, p.reservations()
	for i := range p.entries {
		e := &p.entries[i]
		at := e.offset
		switch {
		case e.void != 0:
			call.Voids = append(call.Voids, dragonfly.Void{ID: e.void, Points: e.points})
			at = dragonfly.OfVoid
		case e.over():
			at = dragonfly.DayOver
		}
		if e.void == 0 {
			call.Events++
			call.Points += uint64(e.points)
		}
		if wanted {
			offsets = append(offsets, at)
		}
	}
	call.Offsets = offsets[begins:]
	return offsets
}

// mode is what a call for a day does with a share of an earlier epoch.
func (p *quotaPartition) mode(day time.Time) dragonfly.Mode {
	switch {
	case day.Before(p.state.Epoch.Day):
		return dragonfly.Adopt
	case p.noted.Keep:
		return dragonfly.Keep
	}
	return dragonfly.Clear
}

// resolve finds out what is known of users.
func (p *quotaPartition) resolve(ctx context.Context) error {
	for len(p.known) < len(p.users) {
		p.known = append(p.known, nil)
	}
	never := func(error) bool { return false }
	return p.KeepTrying(ctx, never, func() error {
		through := p.quota.cfg.Users.AppliedThrough() // before the answers
		err := p.quota.cfg.Users.ResolveMembers(ctx, p.users, p.known[:len(p.users)])
		if err == nil {
			p.through = through
		}
		return err
	})
}

// accepted gives the events of a user and day that count, in the order of their offsets. The claims of the others go to claims, unless that
// is nil.
func (p *quotaPartition) accepted(b *quotaBatch, head *quotaGroup, into []quotaEntry, claims map[int64]bool) []quotaEntry {
	into = into[:0]
	several := false
	for g := head; ; g = &b.groups[g.sibling] {
		sub := p.known[g.place]
		all := plain(g, sub)
		for at := g.first; at >= 0; at = b.entries[at].next {
			e := &b.entries[at]
			switch {
			case all || p.verdict(sub, g.company, g.day, e) == counts:
				into = append(into, *e)
			case claims != nil:
				claims[e.offset] = e.void == 0
			}
		}
		if g.sibling < 0 {
			break
		}
		several = true
	}
	if several {
		slices.SortFunc(into, func(x, y quotaEntry) int { return int(x.offset - y.offset) })
	}
	return into
}

// lookForPast looks at the sentinels if a call is for a day that is over. Where the store was emptied a moment ago, the call would create a counter
// that holds this batch only, and the next epoch, which counts from its own day on, keeps counters of days before.
func (p *quotaPartition) lookForPast(ctx context.Context) error {
	const clocks = time.Minute
	today := time.Now().Add(clocks).UTC().Truncate(24 * time.Hour)
	if !slices.ContainsFunc(p.calls, func(c dragonfly.Call) bool { return c.Day.Before(today) }) {
		return nil
	}
	return p.look(ctx)
}

// try counts the calls that judge has made of a batch, and publishes what is due. It may be repeated.
func (p *quotaPartition) try(ctx context.Context, b *quotaBatch, r kafka.Range) error {
	p.counted = p.counted[:0]
	if err := p.lookForPast(ctx); err != nil {
		return err
	}
	counting, span := p.Tracer().Count(ctx, len(p.calls))
	err := p.count(counting, r, len(p.calls), func(i int) []quotaEntry { return p.accepted(b, &b.groups[p.heads[i]], p.entries, nil) })
	span.End(err)
	if err != nil {
		return err
	}
	return p.finish(ctx)
}

// count makes the calls behind those that are counted, up to the given one, for a range of offsets. entries gives a call's events again.
func (p *quotaPartition) count(ctx context.Context, r kafka.Range, upTo int, entries func(i int) []quotaEntry) error {
	batch := dragonfly.Batch{Epoch: p.state.Epoch.Number, Incarnation: p.noted.Incarnation, From: r.From, To: r.To}
	// In pieces of well below a millisecond, so that a request for a quota does not wait long for the server.
	const most = 32
	first, began := len(p.counted), time.Now()
	defer func() { p.quota.metrics.seconds.Observe(time.Since(began).Seconds()) }()
	var err error
	for from := first; from < upTo; from += most {
		if p.counted, err = p.session.Count(ctx, batch, p.calls[from:min(from+most, upTo)], p.counted); err != nil {
			return err
		}
	}
	for i := first; i < upTo; i++ {
		// An earlier attempt was cut otherwise: what it has counted is left out.
		for p.counted[i].Outcome == dragonfly.Behind {
			if p.counted[i], err = p.countBehind(ctx, batch, p.calls[i], entries(i), p.counted[i].Watermark); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish publishes what the calls have made due.
func (p *quotaPartition) finish(ctx context.Context) error {
	var due []dragonfly.Due
	for i := range p.counted {
		due = append(due, p.counted[i].Due...)
	}
	p.step(QuotaCounted)
	p.showUse()
	return p.publish(ctx, due)
}

// showUse hands what the users of the batch have used to the cache that other services read.
func (p *quotaPartition) showUse() {
	if p.quota.cfg.ShowUse == nil {
		return
	}
	p.uses = p.uses[:0]
	for i, c := range p.counted {
		p.uses = append(p.uses, directory.Use{User: p.calls[i].User, Day: p.calls[i].Day, APICalls: c.Calls, DataPoints: c.Points})
	}
	p.quota.cfg.ShowUse(p.uses)
}

// countBehind makes a call again for the events from the watermark on. Without any, it is made for what an earlier attempt has made due.
func (p *quotaPartition) countBehind(ctx context.Context, batch dragonfly.Batch, call dragonfly.Call, entries []quotaEntry, watermark int64) (dragonfly.Counted, error) {
	p.entries = slices.DeleteFunc(entries, func(e quotaEntry) bool { return e.offset < watermark })
	call.From = watermark
	p.tally(&call, nil)
	one, err := p.session.Count(ctx, batch, []dragonfly.Call{call}, nil)
	if err != nil {
		return dragonfly.Counted{}, err
	}
	return one[0], nil
}

// refuse makes dead letters of events with a wrong claim. Their records are read again; what the log no longer holds can't be one.
func (p *quotaPartition) refuse(ctx context.Context, claims map[int64]bool) error {
	const most = 8 << 20 // bytes held at a time: a batch may have been hundreds of megabytes in the log
	var letters []kafka.DeadLetter
	held := int64(0)
	publish := func() error {
		err := p.DeadLetter(ctx, letters)
		letters, held = letters[:0], 0
		return err
	}
	offsets := make([]int64, 0, len(claims))
	for offset, letter := range claims {
		if letter {
			offsets = append(offsets, offset)
		}
	}
	// Together: one tenant's mistake must not keep the others waiting.
	err := p.ReadOffsets(ctx, offsets, func(r *events.Record) error {
		letters = append(letters, kafka.DeadLetter{Record: kafka.CopyRecord(r), Attempts: 1, Rejection: events.Reject(events.TenantMismatch,
			"the user belonged to another company than the event's at the time of the event, which was not counted")})
		if held += kafka.RecordBytes(r); held < most {
			return nil
		}
		return publish()
	})
	if err != nil {
		return fmt.Errorf("make dead letters of the events of users who belonged to another company: %w", err)
	}
	return publish()
}
