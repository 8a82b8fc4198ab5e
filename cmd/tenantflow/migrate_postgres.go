package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"

	"tenantflow/internal/tier"
	"tenantflow/migrations"
	"tenantflow/sinks/postgres"
)

// migratedPostgres is what was found and done in Postgres.
type migratedPostgres struct {
	migratedStore
	Tiers []migratedTier `json:"tiers"`
	// Tenants is nil when the companies' tables were not looked at.
	Tenants *migratedTenants `json:"tenants,omitempty"`
}

// migratedTenants is what was found and done in the schemas of the companies.
type migratedTenants struct {
	Version   int64          `json:"version"` // the newest
	State     string         `json:"state"`   // applied (before), migrated (now), pending, failed
	Companies int64          `json:"companies"`
	Behind    int64          `json:"behind"` // companies with older tables
	Migrated  int            `json:"migrated"`
	Failed    []tenantChange `json:"failed,omitempty"`
}

type migratedTier struct {
	Tier  string `json:"tier"`
	State string `json:"state"` // applied (before), written (now), removed (now), pending
}

// postgres brings the tables up to this version, and then the catalogue of tiers in them up to the configured one.
func (m *migration) postgres(ctx context.Context) (*migratedPostgres, error) {
	options, err := pgxpool.ParseConfig(m.cfg.PostgresDSN.Reveal())
	if err != nil {
		return nil, fmt.Errorf("read TENANTFLOW_POSTGRES_DSN: %w", err)
	}
	var db *migrations.Postgres
	err = m.reach(ctx, func(ctx context.Context) error {
		db, err = migrations.OpenPostgres(ctx, options.ConnConfig, m.create)
		return err
	})
	if errors.Is(err, migrations.ErrNoDatabase) {
		versions, err := migrations.PostgresVersions()
		return m.pendingPostgres(storeOf(options.ConnConfig.Database, versions, nil)), err
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // everything was answered before

	store, err := m.bring(ctx, db)
	if err != nil {
		return nil, err
	}
	if store.pending() > 0 {
		return m.pendingPostgres(store), nil
	}
	found := &migratedPostgres{migratedStore: store}
	if found.Tiers, err = m.syncTiers(ctx, options); err != nil {
		return found, err
	}
	found.Tenants, err = m.tenants(ctx, db)
	return found, err
}

// tenants brings the companies' own tables up to the newest version, last of all: where there are many, it takes long.
func (m *migration) tenants(ctx context.Context, db *migrations.Postgres) (*migratedTenants, error) {
	var run *tenantRun
	var failure error
	if m.create {
		run, failure = migrateTenants(ctx, db, migrations.TenantMigration{}, m.errOut)
	}
	status, err := db.TenantStatus(ctx)
	if err != nil {
		return nil, errors.Join(failure, err)
	}
	t := &migratedTenants{Version: status.Newest, State: "applied", Companies: status.Companies, Behind: status.Behind}
	if status.Behind > 0 || len(status.Unrecorded) > 0 {
		t.State = "pending"
	}
	if run != nil {
		t.Migrated = run.Changed
		for _, c := range run.Tenants {
			if c.Error != "" {
				t.Failed = append(t.Failed, c)
			}
		}
		switch {
		case len(t.Failed) > 0:
			t.State = "failed"
		case t.Migrated > 0:
			t.State = "migrated"
		}
	}
	return t, failure
}

// add draws the companies' tables.
func (s *migratedTenants) add(t *table, database string) {
	detail := fmt.Sprintf("database %s, version %d, %d companies", database, s.Version, s.Companies)
	if s.Behind > 0 {
		detail += fmt.Sprintf(", %d of them behind", s.Behind)
	}
	t.add("postgres", "tables of companies", s.State, detail)
	for _, c := range s.Failed {
		t.add("", "", "  failed", c.Error)
	}
}

// problem is an error if companies have older tables.
func (s *migratedTenants) problem() error {
	switch {
	case s == nil || s.State == "applied" || s.State == "migrated":
		return nil
	case s.State == "failed":
		return fmt.Errorf("the tables of %d companies could not be migrated; the others are done", len(s.Failed))
	case s.Behind == 0:
		return fmt.Errorf("version %d of the companies' tables is pending", s.Version)
	default:
		return fmt.Errorf("the tables of %d companies are behind", s.Behind)
	}
}

// pendingPostgres is a database in which the table of tiers may not be there yet.
func (m *migration) pendingPostgres(store migratedStore) *migratedPostgres {
	found := &migratedPostgres{migratedStore: store}
	for _, name := range m.tiers.Names() {
		found.Tiers = append(found.Tiers, migratedTier{name, "pending"})
	}
	return found
}

func (m *migration) syncTiers(ctx context.Context, options *pgxpool.Config) ([]migratedTier, error) {
	store, err := postgres.Open(ctx, postgres.Config{Pool: options})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	differ := func(ctx context.Context, c *tier.Catalogue) ([]string, error) { return store.TiersThatDiffer(ctx, c) }
	state, gone := "pending", "pending"
	if m.create {
		differ, state, gone = store.SyncTiers, "written", "removed"
	}
	names, err := differ(ctx, m.tiers)
	if err != nil {
		return nil, err
	}
	var tiers []migratedTier
	for _, name := range m.tiers.Names() {
		t := migratedTier{name, "applied"}
		if slices.Contains(names, name) {
			t.State = state
		}
		tiers = append(tiers, t)
	}
	for _, name := range names {
		if _, ok := m.tiers.Tier(name); !ok {
			tiers = append(tiers, migratedTier{name, gone})
		}
	}
	return tiers, nil
}

// storeOf describes the versions of a database, of which some were applied just now.
func storeOf(database string, versions, applied []migrations.Version) migratedStore {
	store := migratedStore{Database: database}
	for _, v := range versions {
		row := migratedVersion{Version: v.Version, Name: v.Name, State: "pending"}
		if !v.Pending() {
			row.State, row.Applied = "applied", &v.Applied
		}
		if slices.ContainsFunc(applied, func(a migrations.Version) bool { return a.Version == v.Version }) {
			row.State = "created"
		}
		store.Versions = append(store.Versions, row)
	}
	return store
}

// pending counts the versions that are not applied.
func (s *migratedStore) pending() int {
	n := 0
	for _, v := range s.Versions {
		if v.State == "pending" {
			n++
		}
	}
	return n
}

// pendingTiers counts the tiers that are not as in the catalogue.
func (s *migratedPostgres) pendingTiers() int {
	n := 0
	for _, t := range s.Tiers {
		if t.State == "pending" {
			n++
		}
	}
	return n
}
