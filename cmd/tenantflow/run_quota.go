package main

import (
	"context"

	"tenantflow/consumers"
	"tenantflow/events"
)

// runQuota counts usage events until ctx ends.
func runQuota(ctx context.Context, s *service) error {
	const name = "quota"
	done, ok, err := s.openTenants(ctx, name)
	if !ok {
		return err
	}
	defer done()
	cfg := s.cfg
	handler := consumers.NewQuota(consumers.QuotaConfig{
		Session: func(topic string, partition int) consumers.QuotaSession {
			return s.tenants.counters.Session(topic, partition)
		},
		Users:    s.tenants.directory,
		Limits:   events.UsageLimits{FutureTolerance: cfg.FutureTolerance, MaxAge: events.DefaultMaxAge},
		Topic:    cfg.TopicPrefix + events.TopicQuota,
		Registry: s.registry,
	})
	return s.consume(ctx, name, events.TopicUsage, batching{cfg.QuotaBatchRows, cfg.QuotaBatchInterval, cfg.QuotaMemory}, handler)
}
