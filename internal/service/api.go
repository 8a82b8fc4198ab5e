package service

import (
	"context"

	"tenantflow/internal/analytics"
	"tenantflow/internal/business"
	"tenantflow/internal/config"
	"tenantflow/internal/httpapi"
)

// runAPI answers /v1 until ctx ends.
func runAPI(ctx context.Context, r *Running) error {
	rules, tiers, err := Rules(r.Config)
	if err != nil {
		return err
	}
	done, err := r.service.openTenants(ctx)
	if err != nil {
		return err
	}
	defer done()
	tenants, api := &r.service.tenants, r.service.api
	stores := httpapi.Stores{Subscriptions: tenants.directory, Quotas: tenants.counters, Reservations: tenants.counters, ReserveAnyway: r.Config.ReserveWhileRebuilding == config.GrantReservations, Configs: tenants.directory, Companies: tenants.postgres, Rules: rules}
	if r.Config.ClickHouseDSN != "" {
		usage, err := OpenUsage(r.Config)
		if err != nil {
			return err
		}
		defer func() { _ = usage.Close() }() // nothing is written with it
		stores.Analytics = analytics.New(tenants.postgres, usage, tiers)
		exports, err := readBilling(r, tenants.postgres)
		if err != nil {
			return err
		}
		defer func() { _ = exports.Close() }() // nothing is written with it
		stores.Billing = exports
		stores.Business = business.New(Business(r.Config, tenants.postgres, usage, tiers))
	}
	samples := business.NewSamples(tenants.postgres, r.Log)
	stores.Samples = samples
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		samples.Run(ctx)
	}()
	defer func() { <-sampled }()
	api.Attach(stores)
	defer api.Detach()
	r.Ready()
	<-ctx.Done()
	return nil
}
