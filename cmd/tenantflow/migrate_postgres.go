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
	tiers, err := m.syncTiers(ctx, options)
	return &migratedPostgres{store, tiers}, err
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
