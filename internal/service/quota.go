package service

import (
	"context"
	"sync"

	"tenantflow/consumers"
	"tenantflow/events"
)

// runQuota counts usage events until ctx ends.
func runQuota(ctx context.Context, r *Running) error {
	tiers, err := Tiers(r.Config)
	if err != nil {
		return err
	}
	done, err := r.service.openTenants(ctx)
	if err != nil {
		return err
	}
	defer done()
	tenants := &r.service.tenants
	key, err := tenants.postgres.ReplayKey(ctx)
	if err != nil {
		return err
	}
	// It writes until everything is counted, and then what is left.
	activity := consumers.NewActivity(consumers.ActivityConfig{Store: tenants.postgres, Registry: r, Logger: r.Log})
	writing, end := context.WithCancel(context.WithoutCancel(ctx))
	var written sync.WaitGroup
	written.Go(func() { activity.Run(writing) })
	defer func() {
		end()
		written.Wait()
	}()
	cfg := r.Config
	handler := consumers.NewQuota(consumers.QuotaConfig{
		Session: func(topic string, partition int) consumers.QuotaSession {
			return tenants.counters.Session(topic, partition)
		},
		Users:     tenants.directory,
		ReplayKey: key,
		Limits:    UsageLimits(cfg),
		Tiers:     tiers,
		Topic:     cfg.TopicPrefix + events.TopicQuota,
		Activity:  activity,

		Remembering: r.service.memory.grow,
		ShowUse:     tenants.directory.ShowUse,

		ResendWindow:  cfg.QuotaResendWindow,
		ResendRecords: cfg.QuotaResendRecords,

		Registry: r,
	})
	return r.Consume(ctx, events.TopicUsage, Batching{cfg.QuotaBatchRows, cfg.QuotaBatchInterval, cfg.QuotaMemory}, handler)
}
