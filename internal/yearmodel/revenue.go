package yearmodel

import (
	"cmp"
	"math/big"
	"slices"
	"time"
)

// The answer about revenue, in the words of docs/business-metrics.md.
type (
	revenueAnswer struct {
		CompanyID  string          `json:"company_id"`
		Currency   string          `json:"currency"`
		Months     int             `json:"period_months"`
		Total      decimal         `json:"total_revenue"`
		Average    decimal         `json:"avg_monthly_revenue"`
		Attributed decimal         `json:"attributed_revenue"`
		Trend      trendAnswer     `json:"revenue_trend"`
		Tiers      []tierAnswer    `json:"tier_distribution"`
		Breakdown  []partAnswer    `json:"monthly_breakdown"`
		Totals     []monthAnswer   `json:"monthly_totals"`
		Movements  []movedAnswer   `json:"mrr_movements"`
		Forecast   *forecastAnswer `json:"forecast"`
	}
	trendAnswer struct {
		Months int      `json:"months"`
		Slope  *decimal `json:"slope_per_month"`
		Growth *decimal `json:"growth_percentage"`
	}
	tierAnswer struct {
		Tier       string  `json:"subscription_tier"`
		Revenue    decimal `json:"revenue"`
		Percentage decimal `json:"percentage"`
		Months     int     `json:"months"`
	}
	partAnswer struct {
		Month      string  `json:"month"`
		Tier       string  `json:"subscription_tier"`
		Revenue    decimal `json:"monthly_revenue"`
		Attributed decimal `json:"attributed_revenue"`
		Users      int     `json:"active_users"`
		Calls      int64   `json:"total_api_usage"`
	}
	monthAnswer struct {
		Month      string  `json:"month"`
		Complete   bool    `json:"complete"`
		Revenue    decimal `json:"revenue"`
		Attributed decimal `json:"attributed_revenue"`
		Users      int     `json:"active_users"`
		Calls      int64   `json:"total_api_usage"`
	}
	movedAnswer struct {
		Month       string  `json:"month"`
		Start       decimal `json:"start"`
		New         decimal `json:"new"`
		Expansion   decimal `json:"expansion"`
		Reactivated decimal `json:"reactivated"`
		Contraction decimal `json:"contraction"`
		Churned     decimal `json:"churned"`
		End         decimal `json:"end"`
	}
)

// use is what was used in a month, in a tier or in all.
type use struct {
	amount
	users  map[int]bool
	active int64 // of all companies
}

// revenue answers what a company was charged in the months up to the present one.
func (m *Model) revenue(c *Company, months int, at time.Time) *revenueAnswer {
	present := monthOf(at)
	first := present - month(months) + 1
	r := &revenueAnswer{CompanyID: c.ID, Currency: "USD", Months: months, Tiers: []tierAnswer{}, Breakdown: []partAnswer{}}
	type part struct {
		month month
		tier  string
	}
	parts, used, charged := map[part]*use{}, map[month]*use{}, map[month]int64{}
	byPart, attributed := map[part]int64{}, int64(0)
	for _, ch := range c.charges {
		if charged[ch.month] += ch.minor; ch.month >= first && ch.month <= present && ch.minor != 0 {
			byPart[part{ch.month, ch.tier}] += ch.minor
			parts[part{ch.month, ch.tier}] = &use{users: map[int]bool{}}
		}
	}
	for month := first; month <= present; month++ {
		used[month] = &use{users: map[int]bool{}}
	}
	for key, a := range m.used[c.index] {
		month := key.day.month()
		if month < first || month > present || a.calls == 0 {
			continue
		}
		p := part{month, key.tier}
		if parts[p] == nil {
			parts[p] = &use{users: map[int]bool{}}
		}
		for _, u := range []*use{parts[p], used[month]} {
			u.add(a)
			if a.calls > 0 {
				u.users[key.user] = true
			}
		}
		attributed += a.millionths
	}
	total := int64(0)
	for month := first; month <= present; month++ {
		u := used[month]
		total += charged[month]
		r.Totals = append(r.Totals, monthAnswer{month.String(), month < present, decimal(units(charged[month])), millionths(u.millionths), len(u.users), u.calls})
	}
	perTier := map[string]*struct {
		minor  int64
		months int
	}{}
	for p, u := range parts {
		r.Breakdown = append(r.Breakdown, partAnswer{p.month.String(), p.tier, decimal(units(byPart[p])), millionths(u.millionths), len(u.users), u.calls})
		if perTier[p.tier] == nil {
			perTier[p.tier] = &struct {
				minor  int64
				months int
			}{}
		}
		perTier[p.tier].minor += byPart[p]
		if byPart[p] != 0 {
			perTier[p.tier].months++
		}
	}
	slices.SortFunc(r.Breakdown, func(a, b partAnswer) int { return cmp.Or(cmp.Compare(a.Month, b.Month), cmp.Compare(a.Tier, b.Tier)) })
	for tier, of := range perTier {
		r.Tiers = append(r.Tiers, tierAnswer{tier, decimal(units(of.minor)), share(of.minor, total), of.months})
	}
	slices.SortFunc(r.Tiers, func(a, b tierAnswer) int {
		return cmp.Or(cmp.Compare(perTier[b.Tier].minor, perTier[a.Tier].minor), cmp.Compare(a.Tier, b.Tier))
	})
	r.Total = decimal(units(total))
	r.Average = decimal(rounded(big.NewRat(total, int64(100*months)), 2))
	r.Attributed = millionths(attributed)
	r.Trend = trendOf(charged, max(first, monthOf(c.registered)), present-1)
	r.Movements = c.movements(first, present)
	r.Forecast = c.forecast(charged, present)
	return r
}

func millionths(n int64) decimal { return decimal(placed(big.NewInt(n), 6)) }

// share is a part of a total in percent; 0 where there is no total.
func share(part, total int64) decimal {
	if total <= 0 {
		return "0.00"
	}
	return decimal(rounded(new(big.Rat).Mul(big.NewRat(part, total), big.NewRat(100, 1)), 2))
}

// trendOf is where the charges of whole months go: the covariance of month and charge by the variance of the months, and the last
// month against the one before it.
func trendOf(charged map[month]int64, first, last month) trendAnswer {
	n := max(0, int(last-first)+1)
	t := trendAnswer{Months: n}
	if n >= 2 {
		meanX, meanY := big.NewRat(int64(first+last), 2), new(big.Rat)
		for x := first; x <= last; x++ {
			meanY.Add(meanY, big.NewRat(charged[x], int64(n)))
		}
		above, below := new(big.Rat), new(big.Rat)
		for x := first; x <= last; x++ {
			dx := new(big.Rat).Sub(big.NewRat(int64(x), 1), meanX)
			dy := new(big.Rat).Sub(big.NewRat(charged[x], 1), meanY)
			above.Add(above, dy.Mul(dx, dy))
			below.Add(below, dx.Mul(dx, dx))
		}
		slope := above.Quo(above, below)
		text := decimal(rounded(slope.Quo(slope, big.NewRat(100, 1)), 2))
		t.Slope = &text
	}
	if before := charged[last-1]; before != 0 {
		text := decimal(rounded(big.NewRat(100*(charged[last]-before), before), 2))
		t.Growth = &text
	}
	return t
}

// movements are how what the company pays a month has moved.
func (c *Company) movements(first, last month) []movedAnswer {
	var changes []level // one a moment
	for _, l := range c.levels {
		if n := len(changes); n > 0 && changes[n-1].at.Equal(l.at) {
			changes[n-1] = l
			continue
		}
		changes = append(changes, l)
	}
	all := []movedAnswer{}
	pays, ever, next := int64(0), false, 0
	for month := first; month <= last; month++ {
		var start, fresh, more, again, less, lost int64
		start = pays
		for ; next < len(changes) && monthOf(changes[next].at) <= month; next++ {
			to := changes[next].minor
			if monthOf(changes[next].at) == month {
				switch {
				case pays == 0 && ever:
					again += to
				case pays == 0:
					fresh += to
				case to == 0:
					lost += pays
				case to > pays:
					more += to - pays
				default:
					less += pays - to
				}
			}
			pays, ever = to, ever || to > 0
			if monthOf(changes[next].at) < month {
				start = pays
			}
		}
		all = append(all, movedAnswer{month.String(), decimal(units(start)), decimal(units(fresh)), decimal(units(more)), decimal(units(again)),
			decimal(units(less)), decimal(units(lost)), decimal(units(pays))})
	}
	return all
}
