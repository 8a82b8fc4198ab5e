package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/tier"
)

var (
	//go:embed queries/tiers_write.sql
	tiersWriteSQL string
	//go:embed queries/tiers_differ.sql
	tiersDifferSQL string
)

// tierRow is a tier as a row of subscription_tiers. It has all columns but updated_at.
type tierRow struct {
	Tier             string         `json:"tier"`
	Order            int            `json:"catalogue_order"`
	PriceMinor       int64          `json:"price_minor"`
	Currency         string         `json:"currency"`
	Limits           tier.Limits    `json:"limits"`
	Benefits         map[string]any `json:"benefits"`
	SupportLevel     string         `json:"support_level"`
	BackupEvery      string         `json:"backup_every"`
	BackupKeep       int            `json:"backup_keep"`
	StatementTimeout string         `json:"statement_timeout"`
	P95Target        string         `json:"p95_target"`
	Thresholds       []int          `json:"thresholds"`
}

func tierRows(catalogue *tier.Catalogue) ([]byte, error) {
	rows := []tierRow{}
	for i, name := range catalogue.Names() {
		t, _ := catalogue.Tier(name)
		rows = append(rows, tierRow{Tier: t.Name, Order: i, PriceMinor: t.PriceMinor, Currency: tier.Currency, Limits: t.Limits,
			Benefits: t.Benefits, SupportLevel: t.SupportLevel, BackupEvery: t.Backup.Every, BackupKeep: t.Backup.Keep,
			StatementTimeout: interval(t.StatementTimeout), P95Target: interval(t.P95Target), Thresholds: t.Thresholds})
	}
	return json.Marshal(rows)
}

func interval(d time.Duration) string { return fmt.Sprintf("%d microseconds", d.Microseconds()) }

// SyncTiers makes the table subscription_tiers equal to the catalogue, in one transaction, and returns the names of the
// tiers that it has written or removed, sorted. Subscriptions keep the limits they have.
func (s *Store) SyncTiers(ctx context.Context, catalogue *tier.Catalogue) ([]string, error) {
	rows, err := tierRows(catalogue)
	if err != nil {
		return nil, fmt.Errorf("write the catalogue of tiers as JSON: %w", err)
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var names []string
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Two at once would each remove the other's tiers.
		if _, err := tx.Exec(ctx, "LOCK TABLE public.subscription_tiers IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
		names, err = tierNames(tx.Query(ctx, tiersWriteSQL, rows))
		return err
	})
	if err != nil {
		return nil, s.explain("write the catalogue of tiers", err)
	}
	return names, nil
}

// TiersThatDiffer returns the names of the tiers that SyncTiers would write or remove, sorted.
func (s *Store) TiersThatDiffer(ctx context.Context, catalogue *tier.Catalogue) ([]string, error) {
	rows, err := tierRows(catalogue)
	if err != nil {
		return nil, fmt.Errorf("write the catalogue of tiers as JSON: %w", err)
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	names, err := tierNames(s.pool.Query(ctx, tiersDifferSQL, rows))
	if err != nil {
		return nil, s.explain("compare the catalogue of tiers", err)
	}
	return names, nil
}

func tierNames(rows pgx.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
