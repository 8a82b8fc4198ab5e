package postgres_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

func TestTier_OneThatLeftTheCatalogueIsLoggedOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.register(t)
	b.exec(t, "UPDATE subscriptions SET tier = 'gold'")
	var log bytes.Buffer
	store := open(t, postgres.Config{DSN: b.dsn, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	b.tenants = store.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})})
	for range 3 {
		b.apply(t, b.event(events.TypeConfigUpdated, `"config":{"a":1}`), "company.config_changed")
	}
	if got := log.String(); strings.Count(got, "not in the catalogue") != 1 || !strings.Contains(got, "tier=gold") || !strings.Contains(got, b.company) {
		t.Errorf("the log says:\n%s", got)
	}
}
