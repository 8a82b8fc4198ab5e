package main

import (
	"context"

	"tenantflow/internal/health"
)

// runAPI answers /v1 until ctx ends.
func runAPI(ctx context.Context, s *service) error {
	const name = "api"
	done, ok, err := s.openTenants(ctx, name)
	if !ok {
		return err
	}
	defer done()
	s.api.Attach(s.tenants.directory, s.tenants.counters)
	defer s.api.Detach()
	s.health.Set(name, health.Ready, "")
	<-ctx.Done()
	return nil
}
