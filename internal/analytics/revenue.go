package analytics

import (
	"cmp"
	"math/big"
	"slices"
	"time"
)

// Bounds of the months that an analysis of revenue covers.
const (
	DefaultMonths = 12
	MaxMonths     = 36
)

// A Charge is what a company was charged for periods of one tier that begin in one month.
type Charge struct {
	Month       Month
	Tier        string
	Currency    string
	AmountMinor Money
}

// A MonthUsage is the usage of a company in one month: of users with one tier, or of all.
type MonthUsage struct {
	Month       Month
	Tier        string // empty: all tiers
	ActiveUsers uint64 // users with more than 0 calls on a day
	Calls       int64
	Attributed  Attributed
}

// RevenueFacts is what the revenue of a company follows from.
type RevenueFacts struct {
	CompanyID string
	Currency  string
	Since     time.Time // when the company was registered
	PaysNow   Money     // a month
	Charges   []Charge  // of all time
	Usage     []MonthUsage
	Effects   []Effect         // in the order in which they were recorded
	Prices    map[string]Money // of a month, by tier of the catalogue, in minor units
}

// Revenue is the answer to what a company was charged in the months up to the present one, which is not over.
type Revenue struct {
	CompanyID         string       `json:"company_id"`
	Currency          string       `json:"currency"`
	PeriodMonths      int          `json:"period_months"`
	TotalRevenue      Money        `json:"total_revenue"`
	AvgMonthlyRevenue Money        `json:"avg_monthly_revenue"`
	AttributedRevenue Attributed   `json:"attributed_revenue"`
	RevenueTrend      Trend        `json:"revenue_trend"`
	TierDistribution  []TierShare  `json:"tier_distribution"`
	MonthlyBreakdown  []TierMonth  `json:"monthly_breakdown"`
	MonthlyTotals     []MonthTotal `json:"monthly_totals"`
	MRRMovements      []Movement   `json:"mrr_movements"`
	Forecast          *Forecast    `json:"forecast"`
	ForecastReason    string       `json:"forecast_reason,omitempty"` // why there is no forecast
	OtherCurrencies   []OtherMoney `json:"other_currencies,omitempty"`
	AnalysisDate      time.Time    `json:"analysis_date"`
}

// A Trend says where the charged revenue goes, by months that are over.
type Trend struct {
	Months        int         `json:"months"`            // over which the slope is taken
	SlopePerMonth *Money      `json:"slope_per_month"`   // of the least-squares line; nil: under two months
	Growth        *Hundredths `json:"growth_percentage"` // of the last whole month over the one before; nil: that one has no revenue
}

// A TierShare is what a tier brought in.
type TierShare struct {
	Tier       string     `json:"subscription_tier"`
	Revenue    Money      `json:"revenue"`
	Percentage Hundredths `json:"percentage"` // of the total; 0 where the total is not above 0
	Months     int        `json:"months"`     // in which it was charged for
}

// A TierMonth is one tier in one month.
type TierMonth struct {
	Month      Month      `json:"month"`
	Tier       string     `json:"subscription_tier"`
	Revenue    Money      `json:"monthly_revenue"`
	Attributed Attributed `json:"attributed_revenue"`
	Users      uint64     `json:"active_users"`
	Calls      int64      `json:"total_api_usage"`
}

// A MonthTotal is one month over all tiers. A user who changed the tier in it counts once.
type MonthTotal struct {
	Month      Month      `json:"month"`
	Complete   bool       `json:"complete"` // false: the month is not over
	Revenue    Money      `json:"revenue"`
	Attributed Attributed `json:"attributed_revenue"`
	Users      uint64     `json:"active_users"`
	Calls      int64      `json:"total_api_usage"`
}

// OtherMoney is what was charged in another currency than the company's. It is in no other sum.
type OtherMoney struct {
	Currency string `json:"currency"`
	Revenue  Money  `json:"revenue"`
}

// RevenueOf analyses the revenue of a company over a number of months, the present one included.
func RevenueOf(facts *RevenueFacts, months int, now time.Time) *Revenue {
	present := MonthOf(now)
	first := present - Month(months) + 1
	own, others := facts.split(first, present)
	r := &Revenue{CompanyID: facts.CompanyID, Currency: facts.Currency, PeriodMonths: months, AnalysisDate: now.UTC().Truncate(time.Second),
		MonthlyBreakdown: breakdown(own, facts.Usage, first, present), MRRMovements: Movements(facts.Effects, facts.Prices, first, present),
		OtherCurrencies: others}
	byMonth := map[Month]Money{}
	for _, c := range own {
		byMonth[c.Month] += c.AmountMinor
	}
	r.MonthlyTotals = everyMonth(byMonth, facts.Usage, first, present)
	for _, m := range r.MonthlyTotals {
		r.TotalRevenue += m.Revenue
		r.AttributedRevenue.Decimal = r.AttributedRevenue.Add(m.Attributed.Decimal)
	}
	r.AvgMonthlyRevenue = perHundred(big.NewInt(int64(r.TotalRevenue)), big.NewInt(int64(months)))
	r.TierDistribution = distribution(r.MonthlyBreakdown, r.TotalRevenue)
	since := MonthOf(facts.Since)
	begins, charged := firstCharge(own)
	if charged {
		since = min(since, begins)
	}
	r.RevenueTrend = trend(byMonth, max(first, since), present-1)
	r.Forecast, r.ForecastReason = ForecastOf(history(own, present), present)
	switch {
	case r.Forecast == nil:
	case facts.PaysNow == 0:
		r.Forecast, r.ForecastReason = nil, "the company pays nothing a month now"
	default:
		r.Forecast.Months[0].charged(byMonth[present])
	}
	return r
}

// split returns the charges in the company's own currency, of all time, and the sums of others within the months.
func (f *RevenueFacts) split(first, last Month) (own []Charge, others []OtherMoney) {
	sums := map[string]Money{}
	for _, c := range f.Charges {
		switch {
		case c.Currency == f.Currency:
			own = append(own, c)
		case c.Month >= first && c.Month <= last:
			sums[c.Currency] += c.AmountMinor
		}
	}
	for currency, sum := range sums {
		others = append(others, OtherMoney{currency, sum})
	}
	slices.SortFunc(others, func(a, b OtherMoney) int { return cmp.Compare(a.Currency, b.Currency) })
	return own, others
}

// firstCharge is the month of the first charge; false: there is none.
func firstCharge(charges []Charge) (first Month, charged bool) {
	for _, c := range charges {
		if !charged || c.Month < first {
			first, charged = c.Month, true
		}
	}
	return first, charged
}

// history is the revenue of each month from that of the first charge up to the one before next.
func history(charges []Charge, next Month) []Money {
	first, charged := firstCharge(charges)
	if !charged || first >= next {
		return nil
	}
	months := make([]Money, next-first)
	for _, c := range charges {
		if c.Month < next {
			months[c.Month-first] += c.AmountMinor
		}
	}
	return months
}

// breakdown lists the tiers of each month that were charged for or used, by month and tier.
func breakdown(charges []Charge, usage []MonthUsage, first, last Month) []TierMonth {
	type key struct {
		month Month
		tier  string
	}
	rows := map[key]*TierMonth{}
	row := func(month Month, tier string) *TierMonth {
		k := key{month, tier}
		if rows[k] == nil {
			rows[k] = &TierMonth{Month: month, Tier: tier}
		}
		return rows[k]
	}
	for _, c := range charges {
		if c.Month >= first && c.Month <= last && c.AmountMinor != 0 {
			row(c.Month, c.Tier).Revenue += c.AmountMinor
		}
	}
	for _, u := range usage {
		if u.Month >= first && u.Month <= last && u.Tier != "" {
			r := row(u.Month, u.Tier)
			r.Users, r.Calls, r.Attributed = u.ActiveUsers, u.Calls, u.Attributed
		}
	}
	all := make([]TierMonth, 0, len(rows))
	for _, r := range rows {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b TierMonth) int { return cmp.Or(cmp.Compare(a.Month, b.Month), cmp.Compare(a.Tier, b.Tier)) })
	return all
}

// everyMonth lists every month, also those in which nothing happened.
func everyMonth(byMonth map[Month]Money, usage []MonthUsage, first, present Month) []MonthTotal {
	all := make([]MonthTotal, present-first+1)
	for i := range all {
		month := first + Month(i)
		all[i] = MonthTotal{Month: month, Complete: month < present, Revenue: byMonth[month]}
	}
	for _, u := range usage {
		if u.Month >= first && u.Month <= present && u.Tier == "" {
			m := &all[u.Month-first]
			m.Users, m.Calls, m.Attributed = u.ActiveUsers, u.Calls, u.Attributed
		}
	}
	return all
}

// distribution adds the months up by tier, the highest revenue first.
func distribution(months []TierMonth, total Money) []TierShare {
	all, places := []TierShare{}, map[string]int{} // usage may name any number of tiers
	for _, m := range months {
		i, seen := places[m.Tier]
		if !seen {
			i = len(all)
			places[m.Tier] = i
			all = append(all, TierShare{Tier: m.Tier})
		}
		all[i].Revenue += m.Revenue
		if m.Revenue != 0 {
			all[i].Months++
		}
	}
	for i := range all {
		all[i].Percentage = percentage(all[i].Revenue, total)
	}
	slices.SortFunc(all, func(a, b TierShare) int {
		return cmp.Or(cmp.Compare(b.Revenue, a.Revenue), cmp.Compare(a.Tier, b.Tier))
	})
	return all
}

// trend is that of the months from first to last, which are over. Growth looks at the last two, whatever first is.
func trend(byMonth map[Month]Money, first, last Month) Trend {
	t := Trend{Months: max(0, int(last-first)+1)}
	if t.Months >= 2 {
		values := make([]Money, t.Months)
		for i := range values {
			values[i] = byMonth[first+Month(i)]
		}
		per := slope(values)
		t.SlopePerMonth = &per
	}
	if before := byMonth[last-1]; before > 0 {
		growth := percentage(byMonth[last]-before, before)
		t.Growth = &growth
	}
	return t
}

// slope is that of the least-squares line through at least two values, a step apart: (n Σxy - Σx Σy) / (n Σx² - (Σx)²), exact until it is
// rounded half to even.
func slope(values []Money) Money {
	n := big.NewInt(int64(len(values)))
	x, y, xx, xy := new(big.Int), new(big.Int), new(big.Int), new(big.Int)
	for i, value := range values {
		at, v := big.NewInt(int64(i)), big.NewInt(int64(value))
		x.Add(x, at)
		y.Add(y, v)
		xx.Add(xx, new(big.Int).Mul(at, at))
		xy.Add(xy, new(big.Int).Mul(at, v))
	}
	above := new(big.Int).Sub(new(big.Int).Mul(n, xy), new(big.Int).Mul(x, y))
	below := new(big.Int).Sub(new(big.Int).Mul(n, xx), new(big.Int).Mul(x, x))
	return perHundred(above, below)
}
