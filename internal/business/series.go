package business

import (
	"maps"
	"slices"

	"tenantflow/internal/analytics"
	"tenantflow/internal/tier"
)

// churnTarget is what the monthly churn of paid tiers is to stay below, in percent.
const churnTarget = analytics.Hundredths(5_00)

// noUsers is why there is no average.
const noUsers = "no user was active"

// A cell is what is known of one tier, or of all, in one month and currency.
type cell struct {
	companies int // at the end
	mrr       Money
	revenue   Money
	attribute analytics.Attributed
	users     int64
	atStart   int
	churned   int
	paid      bool // the tier has a price
}

// A place is where a cell stands. The tier is empty for all tiers together, of whose companies only those that pay count.
type place struct {
	month    analytics.Month
	currency string
	tier     string
}

// A series is the cells of all months.
type series struct {
	cells          map[place]*cell
	currencies     []string
	first, present analytics.Month
	order          sorter
	tiers          *tier.Catalogue
}

// seriesOf adds up what is known by month, currency and tier.
func seriesOf(f *Facts) *series {
	s := &series{cells: map[place]*cell{}, first: f.first(), present: analytics.MonthOf(f.At), order: newSorter(f.Tiers), tiers: f.Tiers}
	currencies, of := map[string]bool{}, map[string]string{}
	for i := range f.Companies {
		c := &f.Companies[i]
		currencies[c.Currency], of[c.ID] = true, c.Currency
		s.hold(c)
	}
	for _, c := range f.Charges {
		if c.Month < s.first || c.Month > s.present {
			continue // a period that has not begun, or one that is not asked for
		}
		currencies[c.Currency] = true
		s.into(c.Month, c.Currency, c.Tier).revenue += c.AmountMinor
		s.into(c.Month, c.Currency, "").revenue += c.AmountMinor
	}
	for i := range f.Usage {
		u := &f.Usage[i]
		currency, known := of[u.CompanyID]
		if !known { // usage of a company that Postgres does not know
			currency = tier.Currency
			currencies[currency] = true
		}
		to := s.into(u.Month, currency, u.Tier)
		to.users += int64(u.ActiveUsers) // #nosec G115 -- so many users there are not
		to.attribute.Decimal = to.attribute.Add(u.Attributed.Decimal)
	}
	if len(currencies) == 0 {
		currencies[tier.Currency] = true
	}
	s.currencies = slices.Sorted(maps.Keys(currencies))
	return s
}

// into is the cell of a place, to add to.
func (s *series) into(month analytics.Month, currency, tierName string) *cell {
	p := place{month, currency, tierName}
	if s.cells[p] == nil {
		s.cells[p] = s.at(month, currency, tierName)
	}
	return s.cells[p]
}

// at is the cell of a place as it is.
func (s *series) at(month analytics.Month, currency, tierName string) *cell {
	if there := s.cells[place{month, currency, tierName}]; there != nil {
		return there
	}
	known, there := s.tiers.Tier(tierName)
	return &cell{paid: tierName == "" || there && known.PriceMinor > 0}
}

// hold adds what a company held in each of the months.
func (s *series) hold(c *Company) {
	before, had := analytics.HeldBefore(c.Holdings, s.first.Start())
	for month := s.first; month <= s.present; month++ {
		end, has := analytics.HeldBefore(c.Holdings, (month + 1).Start())
		if has && end.Tier != "" {
			own := s.into(month, c.Currency, end.Tier)
			own.companies++
			own.mrr += end.Price
			all := s.into(month, c.Currency, "")
			all.mrr += end.Price
			if end.Price > 0 {
				all.companies++
			}
		}
		if had && before.Tier != "" {
			cells := []*cell{s.into(month, c.Currency, before.Tier)}
			if before.Price > 0 {
				cells[0].paid = true
				cells = append(cells, s.into(month, c.Currency, ""))
			}
			lost := end.Tier == "" || before.Price > 0 && end.Price == 0
			for _, one := range cells {
				one.atStart++
				if lost {
					one.churned++
				}
			}
		}
		before, had = end, has
	}
}

// months lists the months with their currencies and tiers.
func (s *series) months() []Month {
	var all []Month
	for month := s.first; month <= s.present; month++ {
		for _, currency := range s.currencies {
			total := s.at(month, currency, "")
			m := Month{Month: month, Complete: month < s.present, Currency: currency, MRR: total.mrr, Average: total.average(), Churn: total.churn(), Tiers: []MonthTier{}}
			for _, name := range s.tiersIn(month, currency) {
				of := s.at(month, currency, name)
				m.Tiers = append(m.Tiers, MonthTier{Tier: name, Companies: of.companies, MRR: of.mrr, Average: of.average(), Churn: of.churn()})
			}
			all = append(all, m)
		}
	}
	return all
}

// tiersIn are the tiers of the catalogue, and those with something in a month and currency.
func (s *series) tiersIn(month analytics.Month, currency string) []string {
	names := map[string]bool{}
	for _, name := range s.tiers.Names() {
		names[name] = true
	}
	for p := range s.cells {
		if p.month == month && p.currency == currency && p.tier != "" {
			names[p.tier] = true
		}
	}
	return s.order.sorted(names)
}

func (c *cell) average() Average {
	a := Average{Revenue: c.revenue, Users: c.users, ARPU: each(c.revenue, c.users), Attributed: c.attribute}
	if a.ARPU == nil {
		a.Reason = noUsers
	}
	return a
}

func (c *cell) churn() ChurnRate {
	r := ChurnRate{AtStart: c.atStart, Churned: c.churned, Percentage: percent(int64(c.churned), int64(c.atStart))}
	if c.paid {
		target := churnTarget
		r.Target = &target
	}
	switch {
	case r.Percentage == nil:
		r.Reason = "no company had it when the month began"
	case c.paid:
		r.Met = meets(*r.Percentage < churnTarget)
	}
	return r
}

// churnOf is the churn of a month over all currencies.
func (s *series) churnOf(month analytics.Month) Churn {
	sum := func(name string) *cell {
		all := &cell{paid: name == ""}
		for _, currency := range s.currencies {
			one := s.at(month, currency, name)
			all.atStart += one.atStart
			all.churned += one.churned
			all.paid = all.paid || one.paid
		}
		return all
	}
	c := Churn{Month: month, Paid: sum("").churn(), Tiers: []TierChurn{}}
	names := map[string]bool{}
	for _, currency := range s.currencies {
		for _, name := range s.tiersIn(month, currency) {
			names[name] = true
		}
	}
	delete(names, analytics.OtherTier) // that only usage names
	for _, name := range s.order.sorted(names) {
		c.Tiers = append(c.Tiers, TierChurn{name, sum(name).churn()})
	}
	return c
}

// lifetimes are what companies bring in until they leave, by the months that are over.
func (s *series) lifetimes() []Lifetime {
	all := []Lifetime{}
	for _, currency := range s.currencies {
		names := map[string]bool{}
		for month := s.first; month < s.present; month++ {
			for _, name := range s.tiersIn(month, currency) {
				names[name] = true
			}
		}
		delete(names, analytics.OtherTier)
		for _, name := range s.order.sorted(names) {
			l := Lifetime{Tier: name, Currency: currency, Months: int(s.present - s.first)}
			for month := s.first; month < s.present; month++ {
				one := s.at(month, currency, name)
				l.Revenue += one.revenue
				l.CompanyMonths += one.atStart
				l.Churned += one.churned
			}
			l.Monthly = each(l.Revenue, int64(l.CompanyMonths))
			l.ChurnRate = percent(int64(l.Churned), int64(l.CompanyMonths))
			switch {
			case l.CompanyMonths == 0:
				l.Reason = "no company had the tier when one of these months began"
			case l.Churned == 0:
				l.Reason = "no company left the tier in these months"
			default:
				l.Value = each(l.Revenue, int64(l.Churned))
			}
			all = append(all, l)
		}
	}
	return all
}
