package ledger_test

import (
	"testing"
	"time"

	"tenantflow/internal/generate"
	"tenantflow/internal/ledger"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/tier"
)

// The stream that the command prints is the one that the model judges: both books, which share no rule, agree in all that a stream looks at.
func TestLedger_GivesTheStreamOfTheModel(t *testing.T) {
	t.Parallel()
	lines := func(next func([]byte, string) ([]byte, bool)) (all []string) {
		for line, ok := next(nil, ""); ok; line, ok = next(nil, "") {
			all = append(all, string(line))
		}
		return all
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for seed := range uint64(16) {
		config := generate.Companies{Seed: seed, Companies: 8, Events: 600, Phases: 1 + int(seed%5), Now: now.AddDate(0, 0, int(seed)), Prefix: "t-",
			Rejected: 0.3, Conflicts: 0.05, Lapsed: 0.3, Unknown: 2, Held: seed%2 == 0}
		if seed%3 == 0 {
			config.Soon = time.Hour
		}
		of := tier.Default()
		got, err := generate.NewCompanies(config, ledger.New(tenant.New(tenant.Config{Catalogue: of}), of))
		if err != nil {
			t.Fatal(err)
		}
		want, err := tenantmodel.New(config)
		if err != nil {
			t.Fatal(err)
		}
		g, w := lines(got.AppendLine), lines(want.AppendLine)
		if len(g) != len(w) || len(g) < 100 {
			t.Fatalf("seed %d: %d events, want the model's %d", seed, len(g), len(w))
		}
		for i := range g {
			if g[i] != w[i] {
				t.Fatalf("seed %d, event %d:\n%s, want\n%s", seed, i, g[i], w[i])
			}
		}
	}
}
