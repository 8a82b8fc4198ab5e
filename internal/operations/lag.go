package operations

import (
	"context"
	"slices"
	"time"

	"tenantflow/internal/kafka"
)

// lagHistory is how many looks are kept: half an hour.
const lagHistory = int(30 * time.Minute / lagEvery)

// lagOf looks at a group.
func (b *Board) lagOf(g Group) *gatherer[Lag] {
	if b.cfg.Kafka == nil {
		return &gatherer[Lag]{from: "Kafka", every: lagEvery, timeout: lagTimeout, take: func(context.Context) (Lag, error) { return Lag{}, UnsetError("Kafka") }}
	}
	behind := &kafka.Behind{Client: b.cfg.Kafka, Group: g.Group, Topic: g.Topic}
	b.closers = append(b.closers, behind.Close)
	var history []LagSample
	return &gatherer[Lag]{from: "Kafka", every: lagEvery, timeout: lagTimeout, take: func(ctx context.Context) (Lag, error) {
		gaps, err := behind.Look(ctx)
		if err != nil {
			return Lag{}, err
		}
		l := Lag{Consumer: g.Part, Group: g.Group, Topic: g.Topic, Partitions: make([]PartitionLag, len(gaps))}
		for i, gap := range gaps {
			l.Partitions[i] = PartitionLag{Partition: gap.Partition, Records: gap.Records, Committed: gap.Committed, End: gap.End, oldest: gap.Oldest}
		}
		l.age(time.Now())
		sample := LagSample{At: time.Now().UTC(), Records: l.Records, Seconds: l.atLeast()}
		history = append(history, sample)
		history = history[max(0, len(history)-lagHistory):]
		l.History = slices.Clone(history)
		return l, nil
	}}
}

// age says how old the oldest records are at a time.
func (l *Lag) age(now time.Time) {
	l.Records, l.Seconds = 0, nil
	known := true
	for i := range l.Partitions {
		p := &l.Partitions[i]
		l.Records += p.Records
		seconds := 0.0
		switch {
		case p.Records == 0:
		case p.oldest.IsZero():
			p.Seconds, known = nil, false
			continue
		default:
			seconds = tenths(max(0, now.Sub(p.oldest)))
		}
		p.Seconds = &seconds
	}
	if known { // an unknown one may be older
		most := l.atLeast()
		l.Seconds = &most
	}
}

// atLeast is how old the oldest record is at least, in seconds: there may be an older one in a partition of which that is not known.
func (l *Lag) atLeast() float64 {
	most := 0.0
	if l.Seconds != nil {
		most = *l.Seconds
	}
	for _, p := range l.Partitions {
		if p.Seconds != nil {
			most = max(most, *p.Seconds)
		}
	}
	return most
}

// lagNow moves the ages on: while nothing has its effects, they grow.
func lagNow(p Panel[Lag], now time.Time) Panel[Lag] {
	p.Data.Partitions = slices.Clone(p.Data.Partitions)
	if p.Data.Group != "" && !p.Stale {
		p.Data.age(now)
	}
	return p
}
