package postgres_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

func TestTheTableOfTiersBecomesEqualToTheCatalogue(t *testing.T) {
	t.Parallel()
	dsn := enginetest.NewPostgresDatabase(t)
	migrate(t, dsn)
	store := open(t, postgres.Config{DSN: dsn})
	conn := connect(t, dsn)
	path := filepath.Join(t.TempDir(), "tiers.json")
	if err := os.WriteFile(path, []byte(`{"tiers": [{"name": "free", "price_minor": 0, "daily_api_calls": 5, "thresholds": [150, 50], "storage_mb": 1, "max_users": 1,
		"retention_days": 1, "features_enabled": [], "benefits": {}, "support_level": "none", "backup": {"every": "weekly", "keep": 1},
		"statement_timeout": "1500ms", "p95_target": "1s"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := tier.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		catalogue *tier.Catalogue
		before    string
		want      []string
	}{
		{tier.Default(), "", []string{"enterprise", "free", "pro"}},
		{tier.Default(), "", []string{}},
		{tier.Default(), "UPDATE subscription_tiers SET price_minor = 1 WHERE tier = 'pro'", []string{"pro"}},
		{tier.Default(), "UPDATE subscription_tiers SET thresholds = '{80}' WHERE tier = 'free'", []string{"free"}},
		{tier.Default(), "UPDATE subscription_tiers SET thresholds = '{80,100}' WHERE tier = 'enterprise'", []string{"enterprise"}},
		{tier.Default(), `INSERT INTO subscription_tiers SELECT 'old', 9, price_minor, currency, limits, benefits, support_level, backup_every, backup_keep,
			statement_timeout, p95_target FROM subscription_tiers WHERE tier = 'free'`, []string{"old"}},
		{other, "", []string{"enterprise", "free", "pro"}},
		{other, "", []string{}},
	} {
		if step.before != "" {
			if _, err := conn.Exec(t.Context(), step.before); err != nil {
				t.Fatal(err)
			}
		}
		differ, err := store.TiersThatDiffer(t.Context(), step.catalogue)
		if err != nil || !slices.Equal(differ, step.want) {
			t.Errorf("step %d: %q differ: %v", i, differ, err)
		}
		written, err := store.SyncTiers(t.Context(), step.catalogue)
		if err != nil || !slices.Equal(written, step.want) {
			t.Errorf("step %d: %q written: %v", i, written, err)
		}
		if differ, err := store.TiersThatDiffer(t.Context(), step.catalogue); err != nil || len(differ) != 0 {
			t.Errorf("step %d: %q still differ: %v", i, differ, err)
		}
	}
	var got string
	if err := conn.QueryRow(t.Context(), "SELECT format('%s %s %s %s %s %s', tier, limits ->> 'daily_api_calls', extract(epoch FROM statement_timeout), "+
		"backup_every, currency, thresholds) FROM subscription_tiers").Scan(&got); err != nil || got != "free 5 1.500000 weekly USD {50,150}" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestSeveralProcessesMayWriteTheCatalogueAtOnce(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.exec(t, "DELETE FROM subscription_tiers")
	written := make([]int, 4)
	var group errgroup.Group
	for i := range written {
		group.Go(func() error {
			names, err := w.store.SyncTiers(t.Context(), tier.Default())
			written[i] = len(names)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if total := written[0] + written[1] + written[2] + written[3]; total != 3 {
		t.Errorf("tiers written: %v", written)
	}
}
