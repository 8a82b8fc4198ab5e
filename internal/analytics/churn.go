package analytics

import (
	"cmp"
	"math/big"
	"slices"
	"time"

	"tenantflow/internal/tier"
)

// The borders of churn scores from which a risk is high and medium. Below the second it is low.
const (
	highRisk   Hundredths = 70_00
	mediumRisk Hundredths = 40_00
	// noBase is the score where there is nothing that the decline could be a part of.
	noBase Hundredths = 50_00
)

// A MonthlyUse is how many calls a user has made in each of the last three whole UTC months before an analysis, net of voids. The current
// month is the last one that is over.
type MonthlyUse struct {
	UserID                                    string
	TwoMonthsAgo, PreviousMonth, CurrentMonth int64
}

// A ChurnRisk is a user whose calls fall from month to month.
type ChurnRisk struct {
	UserID   string     `json:"user_id"`
	Tier     string     `json:"subscription_tier"`
	Score    Hundredths `json:"churn_risk_score"` // 0 to 100
	Trend    UsageTrend `json:"usage_trend"`
	Strategy string     `json:"retention_strategy"`
}

// A UsageTrend is the calls of three months and by how much the last of them is less than the first.
type UsageTrend struct {
	CurrentMonth  int64      `json:"current_month"`
	PreviousMonth int64      `json:"previous_month"`
	TwoMonthsAgo  int64      `json:"two_months_ago"`
	Decline       Hundredths `json:"decline_percentage"`
}

// A ChurnReport is the users of a company who may leave, and what to do about it.
type ChurnReport struct {
	CompanyID          string      `json:"company_id"`
	TotalAtRiskUsers   int         `json:"total_at_risk_users"`
	ChurnRisks         []ChurnRisk `json:"churn_risks"`
	RecommendedActions []string    `json:"recommended_actions"`
	AnalysisDate       time.Time   `json:"analysis_date"`
}

// ChurnRisks lists the users whose calls have fallen in each of the last two months, the highest score first, equal ones by user id.
func ChurnRisks(tierName string, users []MonthlyUse) []ChurnRisk {
	risks := []ChurnRisk{}
	for _, u := range users {
		// A month that has voids of usage that is gone is below 0. There are no fewer calls than none.
		u.PreviousMonth, u.CurrentMonth = max(u.PreviousMonth, 0), max(u.CurrentMonth, 0)
		if u.TwoMonthsAgo <= u.PreviousMonth || u.PreviousMonth <= u.CurrentMonth {
			continue
		}
		score := ChurnScore(u.TwoMonthsAgo, u.CurrentMonth)
		risks = append(risks, ChurnRisk{
			UserID: u.UserID, Tier: tierName, Score: score, Strategy: strategy(tierName, score),
			Trend: UsageTrend{u.CurrentMonth, u.PreviousMonth, u.TwoMonthsAgo, decline(u.TwoMonthsAgo, u.CurrentMonth)},
		})
	}
	slices.SortFunc(risks, func(a, b ChurnRisk) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.UserID, b.UserID))
	})
	return risks
}

// ChurnScore is by how many percent calls have fallen, 0 to 100. Where there were none to fall from it is 50: nothing is known. No user that
// ChurnRisks lists has it for that reason, as they had calls two months ago.
func ChurnScore(twoMonthsAgo, currentMonth int64) Hundredths {
	if twoMonthsAgo <= 0 {
		return noBase
	}
	return min(max(decline(twoMonthsAgo, currentMonth), 0), 100_00)
}

// decline is by how many percent calls have fallen; 0 where there were none.
func decline(from, to int64) Hundredths {
	if from <= 0 {
		return 0
	}
	fallen := new(big.Int).Sub(big.NewInt(from), big.NewInt(to))
	return Round(new(big.Rat).SetFrac(fallen.Mul(fallen, big.NewInt(100)), big.NewInt(from)))
}

// strategy is how to keep a user, by what the tier is worth and how high the risk is.
func strategy(tierName string, score Hundredths) string {
	level := 0
	switch {
	case score >= highRisk:
		level = 2
	case score >= mediumRisk:
		level = 1
	}
	switch tierName {
	case "enterprise":
		return [...]string{"usage_review", "success_plan", "executive_call"}[level]
	case "pro":
		return [...]string{"feature_tips", "training_offer", "personal_call"}[level]
	case tier.Free:
		return [...]string{"product_tips", "onboarding_mail", "win_back_mail"}[level]
	}
	return [...]string{"product_tips", "training_offer", "personal_call"}[level] // a tier of the operator's own
}

// The actions that are recommended for a company.
const (
	ContactHighRisk = "contact_high_risk_users" // a user's risk is high
	ReviewAccount   = "review_account"          // half of those who had calls two months ago are at risk, or more
	OfferTraining   = "offer_training"          // a user's risk is medium
	SendTips        = "send_usage_tips"         // a user's risk is low
)

// Actions lists what to do about a company's risks, the most pressing first. Of all its users had had calls two months ago.
func Actions(risks []ChurnRisk, had int) []string {
	between := func(from, below Hundredths) bool {
		return slices.ContainsFunc(risks, func(r ChurnRisk) bool { return from <= r.Score && r.Score < below })
	}
	actions := []string{}
	for _, a := range []struct {
		name  string
		holds bool
	}{
		{ContactHighRisk, between(highRisk, 100_01)}, {ReviewAccount, len(risks) > 0 && 2*len(risks) >= had},
		{OfferTraining, between(mediumRisk, highRisk)}, {SendTips, between(0, mediumRisk)},
	} {
		if a.holds {
			actions = append(actions, a.name)
		}
	}
	return actions
}
