package business

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// Facts is what a report follows from.
type Facts struct {
	At        time.Time
	Tiers     *tier.Catalogue
	Companies []Company
	Charges   []analytics.Charge       // of all companies, from the first month of the series on
	Usage     []analytics.CompanyUsage // likewise

	Measures  []postgres.CompanyMeasure
	Isolation []postgres.IsolationCheck
	Latency   []postgres.QueryLatency

	UsageBytes int64            // that the tables of usage take
	Calls      map[string]int64 // in them, by company

	// StoragePrice is what a GB (1,073,741,824 bytes) costs a month, in minor units of the catalogue's currency; nil: it is not known.
	StoragePrice *int64
}

// A Company is a customer, also a former one.
type Company struct {
	ID         string
	Currency   string
	Registered time.Time
	Tier       string // that it has now; empty: none
	Holdings   []analytics.Holding
}

// seriesMonths is how many months the series has, with the present one.
const seriesMonths = 13

// first is the first month of the series.
func (f *Facts) first() analytics.Month { return analytics.MonthOf(f.At) - seriesMonths + 1 }

// A sorter puts tiers in order: those of the catalogue first, as it has them, then others by name, and then what stands for several.
type sorter map[string]int

func newSorter(c *tier.Catalogue) sorter {
	s := sorter{}
	for i, name := range c.Names() {
		s[name] = i - len(c.Names())
	}
	if _, real := s[analytics.OtherTier]; !real {
		s[analytics.OtherTier] = 1
	}
	return s
}

func (s sorter) compare(a, b string) int { return cmp.Or(cmp.Compare(s[a], s[b]), cmp.Compare(a, b)) }

// sorted lists the keys in order.
func (s sorter) sorted(tiers map[string]bool) []string {
	return slices.SortedFunc(maps.Keys(tiers), s.compare)
}

// knownTiers are the tiers that companies have had or were charged for, and those of the catalogue.
func knownTiers(c *tier.Catalogue, companies []Company, charges []analytics.Charge) []string {
	all := map[string]bool{}
	for _, name := range c.Names() {
		all[name] = true
	}
	for i := range companies {
		for _, h := range companies[i].Holdings {
			all[h.Tier] = true
		}
		all[companies[i].Tier] = true
	}
	for _, one := range charges {
		all[one.Tier] = true
	}
	delete(all, "")
	return slices.Sorted(maps.Keys(all))
}
