package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/events"
	"tenantflow/internal/analytics"
	"tenantflow/internal/certs"
	"tenantflow/internal/config"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/internal/trace"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// unopened is the error of a store that can't be opened.
type unopened struct {
	error
}

func (e *unopened) Unwrap() error { return e.error }

// opened marks an error as one of opening a store.
func opened[S any](store *S, err error) (*S, error) {
	if err != nil {
		return nil, &unopened{err}
	}
	return store, nil
}

// OpenClickHouse opens the tables of usage.
func OpenClickHouse(ctx context.Context, cfg *config.Config, log *slog.Logger) (*clickhouse.Store, error) {
	return openClickHouse(ctx, cfg, log, func(o *chgo.Options) *chgo.Options { return o })
}

// openClickHouse opens the tables of usage with options that with has changed.
func openClickHouse(ctx context.Context, cfg *config.Config, log *slog.Logger, with func(*chgo.Options) *chgo.Options) (*clickhouse.Store, error) {
	options, err := cfg.ClickHouseOptions()
	if err != nil {
		return nil, config.Invalidf("reading %sCLICKHOUSE_DSN: %w", config.Prefix, err)
	}
	options = with(options)
	store, err := clickhouse.Open(ctx, clickhouse.Config{Options: options, InsertTimeout: cfg.UsageInsertTimeout, Logger: log})
	if err != nil && clickhouse.Classify(err) == clickhouse.Fatal {
		err = errors.Join(err, errors.New("are the address and the password right, and has `tenantflow migrate` been run?"))
	}
	return opened(store, err)
}

// OpenUsage makes what reads the totals of usage for analyses. It does not connect yet.
func OpenUsage(cfg *config.Config) (*analytics.Usage, error) {
	options, err := cfg.ClickHouseOptions()
	if err != nil {
		return nil, config.Invalidf("reading %sCLICKHOUSE_DSN: %w", config.Prefix, err)
	}
	return opened(analytics.OpenUsage(options))
}

// OpenPostgres opens the tables of companies. timeout bounds each look-up; 0: as the service does it.
func OpenPostgres(ctx context.Context, cfg *config.Config, timeout time.Duration, log *slog.Logger) (*postgres.Store, error) {
	return openPostgres(ctx, cfg, timeout, log, nil)
}

func openPostgres(ctx context.Context, cfg *config.Config, timeout time.Duration, log *slog.Logger, tracer *trace.Tracer) (*postgres.Store, error) {
	return opened(postgres.Open(ctx, postgres.Config{DSN: cfg.PostgresDSN.Reveal(), Timeout: timeout, Logger: log, Tracer: tracer}))
}

// OpenCounters opens the counters of quotas.
func OpenCounters(ctx context.Context, cfg *config.Config, log *slog.Logger) (*dragonfly.Store, error) {
	return openCounters(ctx, cfg, log, nil)
}

func openCounters(ctx context.Context, cfg *config.Config, log *slog.Logger, tracer *trace.Tracer) (*dragonfly.Store, error) {
	counters, err := counters(cfg, log)
	if err != nil {
		return nil, err
	}
	counters.Tracer = tracer
	store, err := dragonfly.Open(ctx, counters)
	var secure *certs.Error
	if err != nil && !errors.As(err, &secure) { // which says where itself
		err = fmt.Errorf("ask Dragonfly at %s: %w", counters.Options.Addr, err)
	}
	return opened(store, err)
}

// counters is how the counter store of a configuration is opened.
func counters(cfg *config.Config, log *slog.Logger) (dragonfly.Config, error) {
	options, err := cfg.DragonflyOptions()
	if err != nil {
		return dragonfly.Config{}, err
	}
	return dragonfly.Config{Options: options, Topic: cfg.TopicPrefix + events.TopicUsage, Lateness: exactly(cfg.QuotaLateness), Logger: log}, nil
}

// Tiers reads the catalogue of tiers.
func Tiers(cfg *config.Config) (*tier.Catalogue, error) {
	catalogue, err := tier.Load(cfg.TiersFile)
	if err != nil {
		return nil, config.Invalidf("TENANTFLOW_TIERS_FILE: %v", err)
	}
	return catalogue, nil
}

// Rules are the rules by which companies and their subscriptions change, and the catalogue of tiers in them.
func Rules(cfg *config.Config) (*tenant.Rules, *tier.Catalogue, error) {
	catalogue, err := Tiers(cfg)
	if err != nil {
		return nil, nil, err
	}
	rules := tenant.Config{Catalogue: catalogue, RenewalGrace: cfg.RenewalGrace, VoidWindow: cfg.VoidWindow}
	if cfg.RenewalGrace == 0 {
		rules.RenewalGrace = -1 // none, and not the default
	}
	return tenant.New(rules), catalogue, nil
}

// UsageLimits are the bounds of the times of usage events.
func UsageLimits(cfg *config.Config) events.UsageLimits {
	return events.UsageLimits{FutureTolerance: exactly(cfg.FutureTolerance), MaxAge: events.DefaultMaxAge}
}

// tenantFuture is how far ahead of its record the time of a company or subscription event may lie.
func tenantFuture(cfg *config.Config) time.Duration {
	return min(exactly(cfg.FutureTolerance), events.DefaultTenantFuture)
}

// exactly makes a duration for options where 0 means "the default": what is set to 0 is none at all.
func exactly(d time.Duration) time.Duration { return max(d, time.Nanosecond) }
