package migrations_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/migrations"
)

// Every statement fits the tables, and its columns are those of the struct that it is read into.
func TestQueries_FitTheSchema(t *testing.T) {
	t.Parallel()
	cfg := newPostgres(t)
	if _, err := openPostgres(t, cfg).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	enginetest.PrepareQueries(t, conn, "queries", map[string]func(pgx.CollectableRow) error{
		"tenant":         enginetest.ByName[migrations.TenantDetails],
		"tenants":        enginetest.ByName[migrations.Tenant],
		"tenants_behind": enginetest.ByName[migrations.TenantResult],
		"tenants_status": enginetest.ByName[migrations.TenantStatus],
	})
}
