package consumers

import (
	"context"
	"time"
)

// Subscription consumes subscription events: upgrades, downgrades, renewals and payments, each applied in one transaction of
// Postgres. What happens by itself, at a period's end or when a time of grace is over, is done here as well: by the owner of the
// partition that the company's events come from, so that it can't overtake an event that is in the log already.
type Subscription struct{ config TenantConfig }

// NewSubscription returns the handler of subscription events.
func NewSubscription(config TenantConfig) *Subscription {
	config.withDefaults()
	return &Subscription{config: config}
}

// Open begins a partition.
func (s *Subscription) Open(ctx context.Context, p *Partition) (BatchPartition, error) {
	opened, err := openTenant(ctx, p, s.config)
	if err != nil {
		return nil, err
	}
	opened.due = &dueWatch{}
	return opened, nil
}

// A dueWatch remembers when a partition was last looked through for what is due.
type dueWatch struct{ looked time.Time }

const (
	// dueWhileBusy is how often that is done while events keep coming. An idle partition is looked through every second.
	dueWhileBusy = 5 * time.Second
	// dueAtOnce is how many companies are taken at a time.
	dueAtOnce = 100
)

// Idle does what is due by now. Nothing is in the log that could have come before.
func (p *tenantPartition) Idle(ctx context.Context) error {
	if p.due == nil || !p.CaughtUp() {
		return nil
	}
	return p.applyDue(ctx, time.Now())
}

// dueWhileBusy does what is due by the time that the events in the log have come to.
func (p *tenantPartition) dueWhileBusy(ctx context.Context, watermark time.Time) error {
	if time.Since(p.due.looked) < dueWhileBusy {
		return nil
	}
	if now := time.Now(); watermark.After(now) {
		watermark = now
	}
	return p.applyDue(ctx, watermark)
}

func (p *tenantPartition) applyDue(ctx context.Context, by time.Time) error {
	p.due.looked = time.Now()
	for {
		var companies []string
		if err := p.keepTrying(ctx, func() (err error) {
			companies, err = p.config.Store.Due(ctx, p.id, by, dueAtOnce)
			return err
		}); err != nil {
			return err
		}
		changed := false
		for _, company := range companies {
			if err := p.keepTrying(ctx, func() error {
				done, err := p.config.Store.ApplyDue(ctx, company, p.id, by)
				p.take(done)
				changed = changed || len(done) > 0
				return err
			}); err != nil {
				return err
			}
		}
		if err := p.publish(ctx, true); err != nil {
			return err
		}
		if len(companies) < dueAtOnce || !changed {
			return nil
		}
	}
}
