package yearload_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/business"
	"tenantflow/internal/directory"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/internal/yearload"
	"tenantflow/internal/yearmodel"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// A year is a world in stores of the test's own, and what asks about it.
type year struct {
	*yearmodel.World
	model   *yearmodel.Model
	analyst *analytics.Analyst
	meter   *business.Meter
}

// load puts a world into the stores.
func load(t *testing.T, config yearmodel.Config) *year {
	t.Helper()
	w, err := yearmodel.New(config)
	if err != nil {
		t.Fatal(err)
	}
	y := &year{World: w, model: yearmodel.NewModel(w)}
	stores := analyticstest.New(t)
	rows, err := clickhouse.Open(t.Context(), clickhouse.Config{Options: stores.Options, InsertTimeout: enginetest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	if err := yearload.Usage(t.Context(), rows, w, y.model.Add); err != nil {
		t.Fatal(err)
	}
	companies, err := postgres.Open(t.Context(), postgres.Config{DSN: postgrestest.New(t), Timeout: enginetest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(companies.Close)
	tenants := companies.Tenants(postgres.TenantsConfig{Rules: tenant.New(tenant.Config{Catalogue: tier.Default()})})
	if _, err := yearload.Companies(t.Context(), tenants, w); err != nil {
		t.Fatal(err)
	}
	usage, err := analytics.OpenUsage(stores.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = usage.Close() })
	y.analyst = analytics.New(companies, usage, tier.Default())
	y.meter = business.New(business.Config{Companies: companies, Usage: usage, Tiers: tier.Default()})
	return y
}

// compare holds all answers about all companies, as of a time, against the model's.
func (y *year) compare(t *testing.T, at time.Time, months int) {
	t.Helper()
	looked := 0
	for _, c := range y.Companies {
		for _, a := range []struct {
			yearmodel.Analysis
			ask func() (any, error)
		}{
			{yearmodel.Revenue(months), func() (any, error) { return y.analyst.Revenue(t.Context(), c.ID, months, at) }},
			{yearmodel.Upsell(), func() (any, error) { return y.analyst.Upsell(t.Context(), c.ID, at) }},
			{yearmodel.ChurnRisk(), func() (any, error) { return y.analyst.ChurnRisk(t.Context(), c.ID, at) }},
		} {
			answer, err := a.ask()
			if c.Unknown() {
				if !errors.Is(err, directory.ErrUnknown) {
					t.Errorf("%s of the purged company %s: %v", a.Name, c.ID, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s of %s: %v", a.Name, c.ID, err)
			}
			text, err := json.Marshal(answer)
			if err != nil {
				t.Fatal(err)
			}
			n, differences := y.model.Compare(a.Analysis, c, at, text)
			looked += n
			for _, d := range differences {
				t.Errorf("%s (%s) as of %s", d, c.Kind, at.Format(time.RFC3339))
			}
		}
	}
	if looked < 10*len(y.Companies) {
		t.Errorf("only %d members were compared", looked)
	}
}

// comparePlatform holds the business metrics of all companies against the model's.
func (y *year) comparePlatform(t *testing.T, at time.Time) {
	t.Helper()
	report, err := y.meter.Report(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	n, differences := y.model.ComparePlatform(at, text)
	for _, d := range differences {
		t.Errorf("%s as of %s", d, at.Format(time.RFC3339))
	}
	if n < 300 {
		t.Errorf("only %d members were compared", n)
	}
}

// A small year of its own for each seed: every analysis of every company is what the independent model says, today, at the end of the
// month and over any number of months.
func TestYear_AnswersAreTheModels(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			now := time.Now().Add(-time.Duration(seed) * 9 * 24 * time.Hour) // other days of the month
			y := load(t, yearmodel.Config{Seed: seed, Companies: 16, Users: 80, Rows: 20_000, Now: now})
			y.comparePlatform(t, now)
			y.compare(t, now, analytics.DefaultMonths)
			y.compare(t, now.Add(time.Minute), 1)
			y.compare(t, now.AddDate(0, 1, 0), 3)
			y.compare(t, now.AddDate(0, 0, 3), analytics.MaxMonths)
		})
	}
}
