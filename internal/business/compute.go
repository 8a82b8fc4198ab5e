package business

import (
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/tier"
)

// Of computes the business metrics. Accuracy is left to the caller.
func Of(f *Facts) *Report {
	s := seriesOf(f)
	last := s.present - 1
	r := &Report{ReportedAt: f.At.UTC().Truncate(time.Second), Month: last, PresentMonth: s.present, Tiers: tiersNow(f, s.order), ARPU: []ARPU{},
		Conversion: conversionOf(f), Lifetime: s.lifetimes(), Churn: s.churnOf(last), Storage: storageOf(f, s), Latency: latencyOf(f, s.order),
		Retention: retentionOf(f), Isolation: isolationOf(f), Months: s.months(), Accuracy: json.RawMessage("null")}
	for _, m := range r.Months {
		if m.Month < last {
			continue
		}
		for _, t := range m.Tiers {
			r.ARPU = append(r.ARPU, ARPU{Month: m.Month, Complete: m.Complete, Tier: t.Tier, Currency: m.Currency, Average: t.Average})
		}
	}
	r.Health = healthOf(r, s)
	return r
}

// tiersNow counts the companies by the tier that they have now.
func tiersNow(f *Facts, order sorter) []Tier {
	counts := map[string]int{}
	for _, name := range f.Tiers.Names() {
		counts[name] = 0
	}
	for i := range f.Companies {
		if name := f.Companies[i].Tier; name != "" {
			counts[name]++
		}
	}
	all := make([]Tier, 0, len(counts))
	for _, name := range slices.SortedFunc(maps.Keys(counts), order.compare) {
		_, known := f.Tiers.Tier(name)
		all = append(all, Tier{name, counts[name], known})
	}
	return all
}

// The window of the conversion: companies that were registered in the year before it began have all had conversionDays since.
const (
	conversionDays   = 90
	conversionCohort = 365
	conversionTarget = analytics.Hundredths(15_00)
	conversionTier   = "pro"
)

// conversionOf counts who came to pay within conversionDays of the registration.
func conversionOf(f *Facts) Conversion {
	y, m, d := f.At.UTC().Date()
	until := time.Date(y, m, d-conversionDays, 0, 0, 0, 0, time.UTC)
	from := until.AddDate(0, 0, -conversionCohort)
	c := Conversion{WindowDays: conversionDays, From: from.Format(time.DateOnly), Until: until.Format(time.DateOnly), ToTier: paidTier(f.Tiers), Target: conversionTarget}
	for i := range f.Companies {
		company := &f.Companies[i]
		if company.Registered.Before(from) || !company.Registered.Before(until) {
			continue
		}
		c.Companies++
		for _, h := range company.Holdings {
			if h.From.After(company.Registered.AddDate(0, 0, conversionDays)) {
				break
			}
			if h.Price > 0 {
				c.ToPaid++
				if h.Tier == c.ToTier {
					c.Converted++
				}
				break
			}
		}
	}
	if c.Percentage = percent(int64(c.Converted), int64(c.Companies)); c.Percentage == nil {
		c.Reason = "no company was registered in these days"
	} else {
		c.Met = meets(*c.Percentage >= c.Target)
	}
	return c
}

// paidTier is the tier that companies are to convert to: pro, or the first with a price.
func paidTier(c *tier.Catalogue) string {
	for _, name := range append([]string{conversionTier}, c.Names()...) {
		if t, known := c.Tier(name); known && t.PriceMinor > 0 {
			return name
		}
	}
	return conversionTier
}

// bytesOfGB is a GB as prices and limits have it.
const bytesOfGB = 1 << 30

// storageOf shares what is stored out to the tiers that the companies have now: Postgres by the bytes of their schemas, usage by their calls.
func storageOf(f *Facts, s *series) Storage {
	last := s.present - 1
	out := Storage{Currency: tier.Currency, PriceMinor: f.StoragePrice, Tiers: []TierStorage{}}
	of, calls := map[string]string{}, map[string]int64{}
	for i := range f.Companies {
		of[f.Companies[i].ID] = f.Companies[i].Tier
	}
	all := int64(0)
	for company, n := range f.Calls {
		calls[of[company]] += n
		all += n
	}
	shares := map[string]*StorageShare{}
	for _, name := range f.Tiers.Names() {
		shares[name] = &StorageShare{}
	}
	share := func(name string) *StorageShare {
		if shares[name] == nil {
			shares[name] = &StorageShare{}
		}
		return shares[name]
	}
	for _, m := range f.Measures {
		if m.Bytes == nil {
			out.NotMeasured++
			continue
		}
		one := share(of[m.CompanyID])
		one.Companies++
		one.Postgres += *m.Bytes
	}
	for name, n := range calls {
		share(name).ClickHouse = part(f.UsageBytes, n, all)
	}
	out.Total = StorageShare{ClickHouse: f.UsageBytes, Revenue: s.at(last, tier.Currency, "").revenue}
	for name, one := range shares {
		out.Total.Companies += one.Companies
		out.Total.Postgres += one.Postgres
		if name != "" {
			one.Revenue = s.at(last, tier.Currency, name).revenue
		}
		one.price(f.StoragePrice)
	}
	out.Total.price(f.StoragePrice)
	for _, name := range slices.SortedFunc(maps.Keys(shares), s.order.compare) {
		if name != "" {
			out.Tiers = append(out.Tiers, TierStorage{&name, *shares[name]})
		}
	}
	if none := shares[""]; none != nil {
		out.Tiers = append(out.Tiers, TierStorage{nil, *none})
	}
	switch {
	case f.StoragePrice == nil:
		out.Reason = "there is no price of storage: TENANTFLOW_STORAGE_PRICE_MINOR is not set"
	case out.Total.PerRevenue == nil:
		out.Reason = "nothing was charged in " + last.String()
	}
	return out
}

// part is the share of n of all in bytes, rounded down.
func part(bytes, n, all int64) int64 {
	if all <= 0 {
		return 0
	}
	product := new(big.Int).Mul(big.NewInt(bytes), big.NewInt(n))
	return product.Div(product, big.NewInt(all)).Int64()
}

// price says what is stored costs.
func (s *StorageShare) price(perGB *int64) {
	if perGB == nil {
		return
	}
	minor := new(big.Int).Mul(big.NewInt(s.Postgres+s.ClickHouse), big.NewInt(*perGB)) // times bytesOfGB
	s.Cost = exactly(minor, big.NewInt(100*bytesOfGB))
	s.PerRevenue = exactly(minor, new(big.Int).Mul(big.NewInt(int64(s.Revenue)), big.NewInt(bytesOfGB)))
}

// leastSamples is from how many samples on there is a percentile.
const leastSamples = 20

// latencyOf holds the queries of each tier against its target.
func latencyOf(f *Facts, order sorter) []Latency {
	by := map[string]*Latency{}
	of := func(name string) *Latency {
		if by[name] == nil {
			t, _ := f.Tiers.Tier(name)
			by[name] = &Latency{Tier: name, Target: milliseconds(t.P95Target), Routes: []RouteLatency{}}
		}
		return by[name]
	}
	for _, name := range f.Tiers.Names() {
		of(name)
	}
	for _, l := range f.Latency {
		one, sampled := of(l.Tier), Sampled{l.Samples, l.Queries}
		var p95 *analytics.Hundredths
		if l.Samples >= leastSamples {
			value := milliseconds(l.P95)
			p95 = &value
		}
		if l.Route == "" {
			one.P95, one.Sampled = p95, sampled
		} else {
			one.Routes = append(one.Routes, RouteLatency{l.Route, p95, sampled})
		}
	}
	all := make([]Latency, 0, len(by))
	for _, name := range slices.SortedFunc(maps.Keys(by), order.compare) {
		one := *by[name]
		if one.P95 == nil {
			one.Reason = "too few samples in 24 hours: 20 are needed"
		} else {
			one.Met = meets(*one.P95 <= one.Target)
		}
		all = append(all, one)
	}
	return all
}

// milliseconds is a duration in milliseconds, cut off after two decimals.
func milliseconds(d time.Duration) analytics.Hundredths {
	return analytics.Hundredths(d / (10 * time.Microsecond))
}

// retentionTolerance is how many days a position may be there for beyond its time, in which the deletion has to come by.
const retentionTolerance = 1

const whole = analytics.Hundredths(100_00)

func retentionOf(f *Facts) Retention {
	r := Retention{ToleranceDays: retentionTolerance, Target: whole}
	for _, m := range f.Measures {
		switch {
		case m.Bytes == nil:
			r.NotMeasured++
		case !m.Kept || m.Overdue == nil || !*m.Overdue: // kept for ever
			r.Companies++
			r.Compliant++
		default:
			r.Companies++
		}
	}
	if r.Percentage = percent(int64(r.Compliant), int64(r.Companies)); r.Percentage == nil {
		r.Reason = "there is no company that can be measured"
	} else if r.Compliant < r.Companies {
		r.Met = meets(false) // the percentage is rounded
	} else if r.NotMeasured == 0 {
		r.Met = meets(true)
	} else {
		r.Reason = "not all companies could be measured"
	}
	return r
}

func isolationOf(f *Facts) Isolation {
	i := Isolation{Covers: "rights in Postgres", Checks: []Check{}}
	for _, c := range f.Isolation {
		i.Leaks += c.Leaks
		i.Checks = append(i.Checks, Check{c.Name, c.Checked, c.Leaks})
	}
	i.Met = i.Leaks == 0
	return i
}
