package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/verify"
	"tenantflow/sinks/postgres"
)

// Verifying is how a verification is to be made.
type Verifying struct {
	Repair   bool                            // what can be mended
	Lower    bool                            // with Repair: see verify.Config
	Since    time.Time                       // look only at what came since; zero: at everything
	Approve  func(verify.Plan) (bool, error) // asked before a repair changes anything; nil: it goes on
	Progress func(verify.Progress)           // nil: nothing is said
	Log      *slog.Logger
}

// verifyTimeout bounds one look-up in Postgres: an audit log may be long.
const verifyTimeout = time.Minute

// Verify proves that the stores hold what the log says. Counters and companies are left out where their stores have no address.
func Verify(ctx context.Context, cfg *config.Config, how Verifying) (*verify.Report, error) {
	options, err := cfg.ClickHouseOptions()
	if err != nil {
		return nil, fmt.Errorf("reading %sCLICKHOUSE_DSN: %w", config.Prefix, err)
	}
	client, disconnect, err := cfg.KafkaClient()
	if err != nil {
		return nil, err
	}
	defer disconnect()
	var tenants *postgres.Store
	if cfg.PostgresDSN != "" {
		if tenants, err = OpenPostgres(ctx, cfg, verifyTimeout, how.Log); err != nil {
			return nil, err
		}
		defer tenants.Close()
	}
	counting, err := counting(cfg)
	if err != nil {
		return nil, err
	}
	if counting != nil && tenants != nil {
		if counting.ReplayKey, err = tenants.ReplayKey(ctx); err != nil {
			return nil, err
		}
	}
	v, err := verify.Open(ctx, verify.Config{
		Client:            client,
		TopicPrefix:       cfg.TopicPrefix,
		CompanyGroup:      cfg.GroupPrefix + ".company",
		SubscriptionGroup: cfg.GroupPrefix + ".subscription",
		Since:             how.Since,
		Approve:           how.Approve,
		ClickHouse:        options,
		Topic:             cfg.TopicPrefix + events.TopicUsage,
		Group:             cfg.GroupPrefix + ".usage",
		Counting:          counting,
		Tenants:           tenants,
		ConfigTopic:       cfg.TopicPrefix + events.TopicCompanyConfig,
		InsertTimeout:     cfg.UsageInsertTimeout,
		FutureTolerance:   UsageLimits(cfg).FutureTolerance,
		Lower:             how.Lower,
		Logger:            how.Log,
		Progress:          how.Progress,
	})
	if err != nil {
		return nil, err
	}
	report, err := v.Run(ctx, how.Repair)
	return report, errors.Join(err, v.Close())
}

// counting says how the service counts usage; nil: there is no address of Dragonfly.
func counting(cfg *config.Config) (*verify.Counting, error) {
	if cfg.DragonflyURL == "" {
		return nil, nil //nolint:nilnil // it is left out
	}
	store, err := counters(cfg, nil)
	if err != nil {
		return nil, err
	}
	return &verify.Counting{
		Store:         store,
		Group:         cfg.GroupPrefix + ".quota",
		ResendWindow:  cfg.QuotaResendWindow,
		ResendRecords: cfg.QuotaResendRecords,
		Limits:        UsageLimits(cfg),
	}, nil
}
