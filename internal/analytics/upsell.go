package analytics

import (
	"cmp"
	"math/big"
	"slices"

	"tenantflow/internal/tier"
)

// UpsellDays is how many whole UTC days before an analysis its averages are of.
const UpsellDays = 30

// roomPercent is how much of a daily limit a user may use on average and still have room.
const roomPercent = 80

// The points of an opportunity's score: at most 40 for the calls, at most 30 for the active days, and those of the tier.
const (
	callPoints = 40
	callsOfAll = 1000 // average daily calls that give all of them
	dayPoints  = 30
	freePoints = 30
	proPoints  = 20
)

// A DailyUse is what a user has used over UpsellDays. A day is active if it has more than 0 calls, net of voids.
type DailyUse struct {
	UserID     string
	ActiveDays int64
	Calls      int64 // of the active days
	DataPoints int64 // of the active days
}

// A Plan is what a company pays and may use.
type Plan struct {
	Tier          string
	PriceMinor    int64      // of a month, in minor units of tier.Currency
	DailyAPICalls tier.Limit // that holds for each user, overrides included
}

// An Opportunity is a user who uses most of what the tier allows, and a tier that would have room.
type Opportunity struct {
	UserID          string     `json:"user_id"`
	CurrentTier     string     `json:"current_tier"`
	RecommendedTier string     `json:"recommended_tier"`
	Score           Hundredths `json:"opportunity_score"` // 0 to 100
	CurrentUsage    AverageUse `json:"current_usage"`
	// RevenueIncrease is what a month of the recommended tier costs more than one of the company's now, and 0 where it does not cost more. It
	// is of the company: several users of one company don't add up.
	RevenueIncrease Hundredths `json:"potential_revenue_increase"`
	Currency        string     `json:"currency"`
}

// An AverageUse is what a user uses on an active day.
type AverageUse struct {
	Calls      Hundredths `json:"avg_daily_calls"`
	DataPoints Hundredths `json:"avg_daily_data"`
	ActiveDays int64      `json:"active_days"`
}

// Upsell lists the users of a company whose average daily calls exceed 80 % of their daily limit and for whom there is a tier with room,
// the highest score first, equal ones by user id. No user exceeds an unlimited plan.
func Upsell(tiers *tier.Catalogue, plan Plan, users []DailyUse) []Opportunity {
	found := []Opportunity{}
	above := tiersAbove(tiers, plan.Tier)
	held, _ := tiers.Tier(plan.Tier) // a tier that is not in the catalogue is treated as free
	for _, u := range users {
		if u.ActiveDays <= 0 || u.Calls <= 0 || hasRoom(u, plan.DailyAPICalls) {
			continue
		}
		i := slices.IndexFunc(above, func(t tier.Tier) bool { return hasRoom(u, t.DailyAPICalls) })
		if i < 0 {
			continue // there is nothing to offer
		}
		found = append(found, Opportunity{
			UserID: u.UserID, CurrentTier: plan.Tier, RecommendedTier: above[i].Name, Score: upsellScore(held.Name, u),
			CurrentUsage:    AverageUse{Round(big.NewRat(u.Calls, u.ActiveDays)), Round(big.NewRat(u.DataPoints, u.ActiveDays)), u.ActiveDays},
			RevenueIncrease: Hundredths(max(above[i].PriceMinor-plan.PriceMinor, 0)), Currency: tier.Currency,
		})
	}
	slices.SortFunc(found, func(a, b Opportunity) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.UserID, b.UserID))
	})
	return found
}

// tiersAbove lists the tiers that a tier can be upgraded to, the cheapest first. Of equal prices the catalogue's first comes first. What the
// company pays has no part in it: a price that was agreed on long ago may be above the catalogue's of today, and the user needs room anyway.
func tiersAbove(tiers *tier.Catalogue, held string) []tier.Tier {
	var above []tier.Tier
	for _, name := range tiers.Names() {
		if t, _ := tiers.Tier(name); tiers.IsUpgrade(held, name) {
			above = append(above, t)
		}
	}
	slices.SortStableFunc(above, func(a, b tier.Tier) int { return cmp.Compare(a.PriceMinor, b.PriceMinor) })
	return above
}

// hasRoom reports whether the average of a user's daily calls is at most 80 % of a limit. The products don't fit 64 bits.
func hasRoom(u DailyUse, limit tier.Limit) bool {
	if limit == tier.Unlimited {
		return true
	}
	used := new(big.Int).Mul(big.NewInt(u.Calls), big.NewInt(100))
	room := new(big.Int).Mul(big.NewInt(int64(limit)), big.NewInt(roomPercent*u.ActiveDays))
	return used.Cmp(room) <= 0
}

// upsellScore is min(average daily calls / 1000, 1) x 40 + min(active days / 30, 1) x 30 + the points of the tier.
func upsellScore(tierName string, u DailyUse) Hundredths {
	score := share(big.NewRat(u.Calls, u.ActiveDays), callsOfAll, callPoints)
	score.Add(score, share(big.NewRat(u.ActiveDays, 1), UpsellDays, dayPoints))
	switch tierName {
	case tier.Free:
		score.Add(score, big.NewRat(freePoints, 1))
	case "pro":
		score.Add(score, big.NewRat(proPoints, 1))
	}
	return Round(score)
}

// share is min(value / whole, 1) x points.
func share(value *big.Rat, whole, points int64) *big.Rat {
	all := big.NewRat(points, 1)
	part := new(big.Rat).Mul(value, big.NewRat(points, whole))
	if part.Cmp(all) > 0 {
		return all
	}
	return part
}
