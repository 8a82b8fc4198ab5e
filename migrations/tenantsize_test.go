package migrations_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/migrations"
)

// A session that holds one company's tables keeps neither the list of all nor the company's own page from an operator.
func TestTenants_AHeldTableCostsOnlyItsOwnSize(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	held, other := d.company("a", "free"), d.company("b", "free")
	holder, err := pgx.Connect(t.Context(), d.dsn(d.owner))
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE tenant_"+held+".users"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	all, err := d.tables.Tenants(ctx, "", 10, true)
	if err != nil || len(all) != 2 {
		t.Fatalf("listed %+v: %v", all, err)
	}
	sized := func(company string) bool {
		return slices.ContainsFunc(all, func(c migrations.Tenant) bool { return c.CompanyID == company && c.Size != nil && *c.Size > 0 })
	}
	if sized(held) || !sized(other) {
		t.Errorf("listed %+v, want a size of %s alone", all, other)
	}
	if shown, err := d.tables.Tenant(ctx, held); err != nil || shown.Size != nil || shown.Schema == nil {
		t.Errorf("shown %+v: %v", shown, err)
	}
	if _, err := holder.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if shown, err := d.tables.Tenant(ctx, held); err != nil || shown.Size == nil {
		t.Errorf("shown %+v: %v", shown, err)
	}
}
