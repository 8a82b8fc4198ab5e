package service

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/internal/business"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// Business says how the business metrics are computed from stores that are open.
func Business(cfg *config.Config, companies *postgres.Store, usage *analytics.Usage, tiers *tier.Catalogue) business.Config {
	return business.Config{Companies: companies, Usage: usage, Tiers: tiers, StoragePrice: int64(cfg.StoragePriceMinor),
		Accuracy: func(ctx context.Context, at time.Time) (any, error) {
			return analytics.New(companies, usage, tiers).Accuracy(ctx, at)
		}}
}

// ReportMetrics is the job business_metrics: it reports the business metrics for a slot, once. publish returns when the event is durable.
func ReportMetrics(ctx context.Context, cfg *config.Config, log *slog.Logger, publish func(context.Context, []kafka.Result) error, slot time.Time) (result any, err error) {
	on, err := openAnalyses(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, on.close()) }()
	reporter := &business.Reporter{Meter: business.New(Business(cfg, on.companies, on.usage, on.tiers)), Store: on.companies,
		Publish: func(ctx context.Context, key string, event *events.Envelope) error {
			return publish(ctx, []kafka.Result{{Topic: cfg.TopicPrefix + events.TopicBusinessMetrics, Key: key, Event: event}})
		}}
	return reporter.ReportMetrics(ctx, slot)
}

// showBusiness sets the metrics of the last report of the business, whichever process made it, until ctx ends.
func showBusiness(ctx context.Context, r *Running) error {
	gauges := business.NewGauges(r)
	store, err := OpenPostgres(ctx, r.Config, 0, r.Log)
	if err != nil {
		return err
	}
	defer store.Close()
	gauges.Run(ctx, store, r.Log)
	return nil
}
