package yearmodel

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"time"
)

type (
	opportunity struct {
		UserID      string  `json:"user_id"`
		Current     string  `json:"current_tier"`
		Recommended string  `json:"recommended_tier"`
		Score       decimal `json:"opportunity_score"`
		Usage       struct {
			Calls decimal `json:"avg_daily_calls"`
			Data  decimal `json:"avg_daily_data"`
			Days  int64   `json:"active_days"`
		} `json:"current_usage"`
		Increase decimal `json:"potential_revenue_increase"`
		Currency string  `json:"currency"`
	}
	// busy is a user's active days of thirty.
	busy struct{ days, calls, points int64 }
)

// upsell answers who uses so much of the tier that the next one would suit.
func (m *Model) upsell(c *Company, at time.Time) []opportunity {
	found := []opportunity{}
	limit := c.calls()
	if c.closed || limit < 0 {
		return found
	}
	present := c.present()
	for index, b := range m.busy(c, dayOf(at)) {
		calls := big.NewRat(b.calls, b.days)
		if !present[index] || fits(calls, limit) {
			continue
		}
		to := roomy(c.tier, calls)
		if to == "" {
			continue
		}
		o := opportunity{UserID: m.names[index], Current: c.tier, Recommended: to, Currency: "USD"}
		score := new(big.Rat).Add(least(new(big.Rat).Quo(calls, big.NewRat(1000, 1)), 40), least(big.NewRat(b.days, 30), 30))
		o.Score = decimal(rounded(score.Add(score, big.NewRat(plans[c.tier].goodwill, 1)), 2))
		o.Usage.Calls, o.Usage.Days = decimal(rounded(calls, 2)), b.days
		o.Usage.Data = decimal(rounded(big.NewRat(b.points, b.days), 2))
		o.Increase = decimal(units(max(0, plans[to].price-c.pays())))
		found = append(found, o)
	}
	slices.SortFunc(found, func(a, b opportunity) int {
		// Scores are equal where they are written equally.
		x, _ := new(big.Rat).SetString(string(a.Score))
		y, _ := new(big.Rat).SetString(string(b.Score))
		return cmp.Or(y.Cmp(x), strings.Compare(a.UserID, b.UserID))
	})
	return found
}

// busy adds up the active days of the thirty before a day, by user. The tiers of a day are one day.
func (m *Model) busy(c *Company, today day) map[int]*busy {
	type userDay struct {
		user int
		day  day
	}
	days := map[userDay]*amount{}
	for key, a := range m.used[c.index] {
		if key.day < today-30 || key.day >= today {
			continue
		}
		k := userDay{key.user, key.day}
		if days[k] == nil {
			days[k] = &amount{}
		}
		days[k].add(a)
	}
	users := map[int]*busy{}
	for k, a := range days {
		if a.calls <= 0 {
			continue
		}
		if users[k.user] == nil {
			users[k.user] = &busy{}
		}
		u := users[k.user]
		u.days++
		u.calls += a.calls
		u.points += a.points
	}
	return users
}

// fits reports whether an average is at most 80 % of a limit.
func fits(calls *big.Rat, limit int64) bool {
	return calls.Cmp(new(big.Rat).Mul(big.NewRat(limit, 1), big.NewRat(4, 5))) <= 0
}

// roomy is the cheapest tier above one in which an average fits; empty: there is none.
func roomy(held string, calls *big.Rat) string {
	best := ""
	for name, p := range plans {
		if p.ladder > plans[held].ladder && (p.calls == 0 || fits(calls, p.calls)) && (best == "" || p.price < plans[best].price) {
			best = name
		}
	}
	return best
}

// least is min(r, 1) x points.
func least(r *big.Rat, points int64) *big.Rat {
	if r.Cmp(big.NewRat(1, 1)) > 0 {
		r = big.NewRat(1, 1)
	}
	return new(big.Rat).Mul(r, big.NewRat(points, 1))
}
