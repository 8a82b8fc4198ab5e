package consumers

import (
	"cmp"
	"context"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
)

// Subscription consumes subscription events: upgrades, downgrades, renewals and payments, each applied in one transaction of
// Postgres. What is due by the clock is published to the topic by the owner of the partition that the company's events are in, and
// applied when it is read there: so the log alone says what came before what.
type Subscription struct{ config TenantConfig }

// NewSubscription returns the handler of subscription events.
func NewSubscription(config TenantConfig) *Subscription {
	config.withDefaults()
	return &Subscription{config: config}
}

// Open begins a partition.
func (s *Subscription) Open(ctx context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	opened, err := openTenant(ctx, p, s.config, subscriptionEffect)
	if err != nil {
		return nil, err
	}
	opened.due = &dueWatch{looked: time.Now(), find: s.config.Store.Due}
	return opened, nil
}

// A dueWatch finds what is due in a partition, and remembers when that was last looked for.
type dueWatch struct {
	looked time.Time
	busy   time.Duration // how often that is done while events keep coming; 0: dueWhileBusy
	find   func(ctx context.Context, partition int, by time.Time, limit int) ([]*events.Event, error)
}

const (
	// dueWhileBusy is how often that is done while events keep coming. An idle partition is looked through every second.
	dueWhileBusy = 5 * time.Second
	// overrideWhileBusy is the same for the limits of a company's own, which are to end within a second.
	overrideWhileBusy = 500 * time.Millisecond
	// dueLive is how new the record that was read last must be for the partition to count as read to its end while events keep coming.
	dueLive = 10 * time.Second
	// dueSettled is how long before the record that was read last something must have been due to be published from a backlog: a log that
	// is read again has the event that was published at the time close behind, which is enough.
	dueSettled = time.Minute
	// dueAtOnce is how many companies are taken at a time.
	dueAtOnce = 100
)

// Idle publishes what is due by now.
func (p *tenantPartition) Idle(ctx context.Context) error {
	if p.due == nil || !p.CaughtUp() {
		return nil
	}
	return p.publishDue(ctx, time.Time{})
}

// dueWhileBusy publishes what is due by now, or in a backlog by the time that the log was read to.
func (p *tenantPartition) dueWhileBusy(ctx context.Context, read time.Time) error {
	if time.Since(p.due.looked) < cmp.Or(p.due.busy, dueWhileBusy) {
		return nil
	}
	if time.Since(read) < dueLive {
		return p.publishDue(ctx, time.Time{})
	}
	return p.publishDue(ctx, read.Add(-dueSettled))
}

// publishDue publishes what is due by a time, zero: by Postgres' clock, to this partition. A crash before it is noted publishes it
// again: what is done already has no effect.
func (p *tenantPartition) publishDue(ctx context.Context, by time.Time) error {
	p.due.looked = time.Now()
	for {
		var due []*events.Event
		if err := p.keepTrying(ctx, func() (err error) {
			due, err = p.due.find(ctx, p.ID(), by, dueAtOnce)
			return err
		}); err != nil || len(due) == 0 {
			return err
		}
		id := p.ID()
		results := make([]kafka.Result, len(due))
		for i, e := range due {
			results[i] = kafka.Result{Topic: p.Topic(), Key: e.Key, Event: &e.Envelope, Partition: &id}
		}
		if err := p.Publish(ctx, results); err != nil {
			return err
		}
		p.config.Step(TenantDuePublished)
		if err := p.keepTrying(ctx, func() error { return p.config.Store.MarkDue(ctx, due) }); err != nil {
			return err
		}
		if len(due) < dueAtOnce {
			return nil
		}
	}
}
