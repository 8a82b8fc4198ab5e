package main

import (
	"context"
	"fmt"

	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/tier"
)

// runAPI answers /v1 until ctx ends.
func runAPI(ctx context.Context, s *service) error {
	const name = "api"
	tiers, err := tier.Load(s.cfg.TiersFile)
	if err != nil {
		return fmt.Errorf("reading what previews of subscriptions need: %w", err)
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
