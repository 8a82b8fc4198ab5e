package consumers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

// judge makes calls of the groups of a batch, and returns those whose user belongs to another company, by the offsets of
// their events.
func (p *quotaPartition) judge(ctx context.Context, b *quotaBatch) (map[int64]*quotaGroup, error) {
	if err := p.resolve(ctx, b); err != nil {
		return nil, err
	}
	refused := map[int64]*quotaGroup{}
	p.calls, p.heads = p.calls[:0], p.heads[:0]
	// The counter of such a day has expired, by whatever clock.
	const clocks = time.Hour
	expired := time.Now().Add(-clocks).UnixMilli() - p.lateness
	var offsets []int64
	for i := range b.groups {
		g := &b.groups[i]
		if !g.head {
			continue
		}
		p.entries = p.accepted(b, g, p.entries, refused)
		switch {
		case len(p.entries) == 0:
			continue
		case (g.day+1)*dayMillis < expired:
			b.late += len(p.entries)
			continue
		}
		day := time.UnixMilli(g.day * dayMillis).UTC()
		call := dragonfly.Call{User: g.user, Day: day, Mode: p.mode(day), Events: len(p.entries), Limit: limitOf(p.known[i])}
		begins := len(offsets)
		call.Points, offsets = p.sum(call.Limit >= 0, offsets)
		call.Offsets = offsets[begins:]
		p.calls, p.heads = append(p.calls, call), append(p.heads, int32(i)) // #nosec G115 -- a batch holds far fewer than 2^31
	}
	return refused, nil
}

// sum adds up the data points of the entries, and appends their offsets where they are needed.
func (p *quotaPartition) sum(limited bool, offsets []int64) (points uint64, all []int64) {
	for _, e := range p.entries {
		points += uint64(e.points)
		switch {
		case !limited:
		case e.over:
			offsets = append(offsets, -1)
		default:
			offsets = append(offsets, e.offset)
		}
	}
	return points, offsets
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

// limitOf is the daily limit of a user's calls; tier.Unlimited if there is none, or nothing is known of the user.
func limitOf(sub *directory.Subscription) int64 {
	if sub == nil || sub.Tier == "" {
		return int64(tier.Unlimited)
	}
	return int64(sub.Limits.DailyAPICalls)
}

// resolve finds out what is known of the users of a batch.
func (p *quotaPartition) resolve(ctx context.Context, b *quotaBatch) error {
	p.users = p.users[:0]
	for i := range b.groups {
		p.users = append(p.users, b.groups[i].user)
	}
	for len(p.known) < len(p.users) {
		p.known = append(p.known, nil)
	}
	delays := retryDelays()
	for {
		err := p.quota.cfg.Users.Resolve(ctx, p.users, p.known[:len(p.users)])
		if err == nil {
			return nil
		}
		p.Waiting(err)
		if pause(ctx, delays.NextBackOff()) != nil {
			return err
		}
	}
}

// accepted gives the events of a user and day that count, in the order of their offsets. Those under another company than
// the user's go to refused, unless that is nil.
func (p *quotaPartition) accepted(b *quotaBatch, head *quotaGroup, into []quotaEntry, refused map[int64]*quotaGroup) []quotaEntry {
	into = into[:0]
	several := false
	for g := head; ; g = &b.groups[g.sibling] {
		sub := p.known[g.place]
		for at := g.first; at >= 0; at = b.entries[at].next {
			switch {
			case sub == nil || sub.CompanyID == g.company:
				into = append(into, b.entries[at])
			case refused != nil:
				refused[b.entries[at].offset] = g
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

// try counts the calls that judge has made of a batch, and publishes what has become due. It may be repeated.
func (p *quotaPartition) try(ctx context.Context, b *quotaBatch, r Range) error {
	batch := dragonfly.Batch{Epoch: p.state.Epoch.Number, Incarnation: p.noted.Incarnation, From: r.From, To: r.To}
	p.counted = p.counted[:0]
	// In pieces of well below a millisecond, so that a request for a quota does not wait long for the server.
	const most = 32
	var err error
	for from := 0; from < len(p.calls); from += most {
		if p.counted, err = p.session.Count(ctx, batch, p.calls[from:min(from+most, len(p.calls))], p.counted); err != nil {
			return err
		}
	}
	var due []dragonfly.Due
	for i := range p.counted {
		// An earlier attempt was cut otherwise: what it has counted is left out.
		for p.counted[i].Outcome == dragonfly.Behind {
			if p.counted[i], err = p.countBehind(ctx, b, batch, i, p.counted[i].Watermark); err != nil {
				return err
			}
		}
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

// countBehind makes a call again for the events from the watermark on.
func (p *quotaPartition) countBehind(ctx context.Context, b *quotaBatch, batch dragonfly.Batch, i int, watermark int64) (dragonfly.Counted, error) {
	call := p.calls[i]
	entries := p.accepted(b, &b.groups[p.heads[i]], p.entries, nil)
	p.entries = slices.DeleteFunc(entries, func(e quotaEntry) bool { return e.offset < watermark })
	call.From, call.Events = watermark, len(p.entries)
	call.Points, call.Offsets = p.sum(call.Limit >= 0, nil)
	one, err := p.session.Count(ctx, batch, []dragonfly.Call{call}, nil)
	if err != nil {
		return dragonfly.Counted{}, err
	}
	return one[0], nil
}

// mismatches makes dead letters of refused events, whose records are read again. What the log no longer holds can't be one.
func (p *quotaPartition) mismatches(ctx context.Context, refused map[int64]*quotaGroup) error {
	const most = 8 << 20 // bytes held at a time: a batch may have been hundreds of megabytes in the log
	var letters []DeadLetter
	held := int64(0)
	publish := func() error {
		err := p.DeadLetter(ctx, letters)
		letters, held = letters[:0], 0
		return err
	}
	// Together: one tenant's mistake must not keep the others waiting.
	err := readOffsets(ctx, p.group.client, p.Topic(), p.ID(), slices.Collect(maps.Keys(refused)), func(r *events.Record) error {
		g := refused[r.Offset]
		letters = append(letters, DeadLetter{Record: CopyRecord(r), Attempts: 1,
			Rejection: events.Reject(events.TenantMismatch, "user %s does not belong to company %s; the event was not counted", g.user, g.company)})
		if held += recordBytes(r); held < most {
			return nil
		}
		return publish()
	})
	if err != nil {
		return fmt.Errorf("make dead letters of the events of users who belong to another company: %w", err)
	}
	return publish()
}
