package service

import (
	"context"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/internal/business"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// businessTimeout bounds one statement of the hourly report, which looks at every company.
const businessTimeout = time.Minute

// Business says how the business metrics are computed from stores that are open.
func Business(cfg *config.Config, companies *postgres.Store, usage *analytics.Usage, tiers *tier.Catalogue) business.Config {
	return business.Config{Companies: companies, Usage: usage, Tiers: tiers, StoragePrice: int64(cfg.StoragePriceMinor),
		Accuracy: func(ctx context.Context, at time.Time) (any, error) {
			return analytics.New(companies, usage, tiers).Accuracy(ctx, at)
		}}
}

// ReportMetrics is the job business_metrics: it reports the business metrics for a slot, once.
func ReportMetrics(ctx context.Context, cfg *config.Config, client *kafkago.Client, log *slog.Logger, slot time.Time) (any, error) {
	tiers, err := Tiers(cfg)
	if err != nil {
		return nil, err
	}
	store, err := OpenPostgres(ctx, cfg, businessTimeout, log)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	usage, err := OpenUsage(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = usage.Close() }() // everything was answered before
	results := kafka.NewResults(client)
	defer func() { _ = results.Close() }() // everything was published before
	reporter := &business.Reporter{Meter: business.New(Business(cfg, store, usage, tiers)), Store: store,
		Publish: func(ctx context.Context, key string, event *events.Envelope) error {
			return results.Publish(ctx, []kafka.Result{{Topic: cfg.TopicPrefix + events.TopicBusinessMetrics, Key: key, Event: event}}, func(error) {})
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
