package service

import (
	"context"

	"tenantflow/internal/config"
	"tenantflow/internal/httpapi"
)

// runAPI answers /v1 until ctx ends.
func runAPI(ctx context.Context, r *Running) error {
	rules, _, err := Rules(r.Config)
	if err != nil {
		return err
	}
	done, err := r.service.openTenants(ctx)
	if err != nil {
		return err
	}
	defer done()
	tenants, api := &r.service.tenants, r.service.api
	api.Attach(httpapi.Stores{Subscriptions: tenants.directory, Quotas: tenants.counters, Reservations: tenants.counters, ReserveAnyway: r.Config.ReserveWhileRebuilding == config.GrantReservations, Configs: tenants.directory, Companies: tenants.postgres, Rules: rules})
	defer api.Detach()
	r.Ready()
	<-ctx.Done()
	return nil
}
