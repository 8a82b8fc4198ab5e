package main

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/consumers"
	"tenantflow/events"
)

// runQuota counts usage events until ctx ends.
func runQuota(ctx context.Context, s *service, metrics prometheus.Registerer) error {
	const name = "quota"
	done, ok, err := s.openTenants(ctx, name)
	if !ok {
		return err
	}
	defer done()
	key, err := s.tenants.postgres.ReplayKey(ctx)
	if err != nil {
		return err
	}
	// It writes until everything is counted, and then what is left.
	activity := consumers.NewActivity(consumers.ActivityConfig{Store: s.tenants.postgres, Registry: metrics, Logger: s.log})
	writing, end := context.WithCancel(context.WithoutCancel(ctx))
	var written sync.WaitGroup
	written.Go(func() { activity.Run(writing) })
	defer func() {
		end()
		written.Wait()
	}()
	cfg := s.cfg
	handler := consumers.NewQuota(consumers.QuotaConfig{
		Session: func(topic string, partition int) consumers.QuotaSession {
			return s.tenants.counters.Session(topic, partition)
		},
		Users:     s.tenants.directory,
		ReplayKey: key,
		Limits:    events.UsageLimits{FutureTolerance: exactly(cfg.FutureTolerance), MaxAge: events.DefaultMaxAge},
		Topic:     cfg.TopicPrefix + events.TopicQuota,
		Activity:  activity,
		ShowUse:   s.tenants.directory.ShowUse,

		ResendWindow:  cfg.QuotaResendWindow,
		ResendRecords: cfg.QuotaResendRecords,

		Registry: metrics,
	})
	return s.consume(ctx, metrics, name, events.TopicUsage, batching{cfg.QuotaBatchRows, cfg.QuotaBatchInterval, cfg.QuotaMemory}, handler)
}
