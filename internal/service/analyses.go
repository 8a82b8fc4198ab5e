package service

import (
	"context"
	"log/slog"

	"tenantflow/internal/analytics"
	"tenantflow/internal/config"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// analyses is what the analyses of all companies work with.
type analyses struct {
	companies *postgres.Store
	usage     *analytics.Usage
	tiers     *tier.Catalogue
}

// openAnalyses opens it for a job, which may look at every company in one statement.
func openAnalyses(ctx context.Context, cfg *config.Config, log *slog.Logger) (*analyses, error) {
	tiers, err := Tiers(cfg)
	if err != nil {
		return nil, err
	}
	companies, err := OpenPostgres(ctx, cfg, taskTimeout, log)
	if err != nil {
		return nil, err
	}
	usage, err := OpenUsage(cfg)
	if err != nil {
		companies.Close()
		return nil, err
	}
	return &analyses{companies, usage, tiers}, nil
}

func (a *analyses) close() error {
	a.companies.Close()
	return a.usage.Close()
}
