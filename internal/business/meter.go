package business

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"tenantflow/internal/analytics"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// Config is what a Meter needs. The stores are the caller's to close.
type Config struct {
	Companies *postgres.Store
	Usage     *analytics.Usage
	Tiers     *tier.Catalogue

	// StoragePrice is what a GB costs a month, in minor units of the catalogue's currency; 0: it is not known.
	StoragePrice int64

	// Accuracy measures how good the predictions were, as a JSON value; nil: it is not measured.
	Accuracy func(ctx context.Context, at time.Time) (any, error)
}

// A Meter computes the business metrics from the stores. It may be used by several goroutines at once.
type Meter struct{ cfg Config }

// New makes a Meter.
func New(cfg Config) *Meter { return &Meter{cfg} }

// Report computes the business metrics as of a time. Latency, storage, retention and isolation are those of now.
func (m *Meter) Report(ctx context.Context, at time.Time) (*Report, error) {
	facts := &Facts{At: at, Tiers: m.cfg.Tiers}
	if m.cfg.StoragePrice > 0 {
		facts.StoragePrice = &m.cfg.StoragePrice
	}
	accuracy := json.RawMessage("null")
	work, ctx := errgroup.WithContext(ctx)
	// Two at a time of each store: other requests need the connections, too.
	work.Go(func() error { return m.history(ctx, facts) })
	work.Go(func() error { return m.state(ctx, facts) })
	work.Go(func() (err error) {
		facts.UsageBytes, facts.Calls, err = m.cfg.Usage.Stored(ctx, at.AddDate(-2, 0, 0)) // what the table of usage keeps
		return err
	})
	if m.cfg.Accuracy != nil {
		work.Go(func() error {
			found, err := m.cfg.Accuracy(ctx, at)
			if err != nil {
				return fmt.Errorf("measure how good the predictions were: %w", err)
			}
			accuracy, err = json.Marshal(found)
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	report := Of(facts)
	report.Accuracy = accuracy
	return report, nil
}

// state reads what can only be seen as it is now.
func (m *Meter) state(ctx context.Context, facts *Facts) (err error) {
	if facts.Measures, err = m.cfg.Companies.CompanyMeasures(ctx, retentionTolerance); err != nil {
		return err
	}
	if facts.Isolation, err = m.cfg.Companies.IsolationChecks(ctx); err != nil {
		return err
	}
	facts.Latency, err = m.cfg.Companies.QueryLatencies(ctx)
	return err
}

// history reads who held and paid what, and then the usage by the tiers that there are.
func (m *Meter) history(ctx context.Context, facts *Facts) error {
	companies, err := m.cfg.Companies.BusinessCompanies(ctx)
	if err != nil {
		return err
	}
	prices := map[string]Money{}
	for _, name := range m.cfg.Tiers.Names() {
		t, _ := m.cfg.Tiers.Tier(name)
		prices[name] = Money(t.PriceMinor)
	}
	facts.Companies = make([]Company, len(companies))
	for i := range companies {
		facts.Companies[i] = companyOf(&companies[i], prices)
	}
	charges, err := m.cfg.Companies.BusinessCharges(ctx, facts.first().Start())
	if err != nil {
		return err
	}
	if facts.Charges, err = analytics.ChargesOf(charges); err != nil {
		return fmt.Errorf("read what all companies were charged: %w", err)
	}
	facts.Usage, err = m.cfg.Usage.Companies(ctx, facts.first(), analytics.MonthOf(facts.At), knownTiers(m.cfg.Tiers, facts.Companies, facts.Charges))
	return err
}

// companyOf takes over what is recorded of a company.
func companyOf(c *postgres.BusinessCompany, prices map[string]Money) Company {
	effects := analytics.EffectsOf(c.Effects(), Money(c.PriceMinor))
	return Company{ID: c.CompanyID, Currency: c.Currency, Registered: c.CreatedAt, Tier: c.Tier, Holdings: analytics.Holdings(c.CreatedAt, effects, prices)}
}
