package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/tier"
)

// runAPI answers /v1 until ctx ends.
func runAPI(ctx context.Context, s *service, _ prometheus.Registerer) error {
	const name = "api"
	tiers, err := tier.Load(s.cfg.TiersFile)
	if err != nil {
		return invalid("TENANTFLOW_TIERS_FILE: %v", err)
	}
	done, ok, err := s.openTenants(ctx, name)
	if !ok {
		return err
	}
	defer done()
	s.api.Attach(httpapi.Stores{Subscriptions: s.tenants.directory, Quotas: s.tenants.counters, Configs: s.tenants.directory,
		Companies: s.tenants.postgres, Rules: tenantRules(s.cfg, tiers)})
	defer s.api.Detach()
	s.health.Set(name, health.Ready, "")
	<-ctx.Done()
	return nil
}
