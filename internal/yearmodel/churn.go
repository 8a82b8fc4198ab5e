package yearmodel

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"time"
)

type (
	churnAnswer struct {
		CompanyID string      `json:"company_id"`
		Total     int         `json:"total_at_risk_users"`
		Risks     []churnRisk `json:"churn_risks"`
		Actions   []string    `json:"recommended_actions"`
	}
	churnRisk struct {
		UserID string  `json:"user_id"`
		Tier   string  `json:"subscription_tier"`
		Score  decimal `json:"churn_risk_score"`
		Trend  struct {
			Current  int64   `json:"current_month"`
			Previous int64   `json:"previous_month"`
			First    int64   `json:"two_months_ago"`
			Decline  decimal `json:"decline_percentage"`
		} `json:"usage_trend"`
		Strategy string `json:"retention_strategy"`
	}
)

// What to do, by tier and by how high the risk is.
var strategies = map[string][3]string{
	free:       {"product_tips", "onboarding_mail", "win_back_mail"},
	pro:        {"feature_tips", "training_offer", "personal_call"},
	enterprise: {"usage_review", "success_plan", "executive_call"},
}

// churn answers whose calls have fallen in each of the last two whole months.
func (m *Model) churn(c *Company, at time.Time) *churnAnswer {
	r := &churnAnswer{CompanyID: c.ID, Risks: []churnRisk{}, Actions: []string{}}
	if c.closed {
		return r
	}
	present := monthOf(at)
	calls := map[int]*[3]int64{}
	for key, a := range m.used[c.index] {
		ago := int(present - key.day.month()) // 1: the current month
		if ago < 1 || ago > 3 {
			continue
		}
		if calls[key.user] == nil {
			calls[key.user] = &[3]int64{}
		}
		calls[key.user][ago-1] += a.calls
	}
	here, had := c.present(), 0
	for index, n := range calls {
		current, previous, first := max(0, n[0]), max(0, n[1]), n[2]
		if !here[index] || first <= 0 {
			continue
		}
		had++
		if first <= previous || previous <= current {
			continue
		}
		risk := churnRisk{UserID: m.names[index], Tier: c.tier, Score: decimal(rounded(big.NewRat(100*(first-current), first), 2))}
		risk.Trend.Current, risk.Trend.Previous, risk.Trend.First, risk.Trend.Decline = current, previous, first, risk.Score
		risk.Strategy = strategies[c.tier][risk.height()]
		r.Risks = append(r.Risks, risk)
	}
	r.Total = len(r.Risks)
	slices.SortFunc(r.Risks, func(a, b churnRisk) int {
		return cmp.Or(b.written().Cmp(a.written()), strings.Compare(a.UserID, b.UserID))
	})
	r.Actions = actions(r.Risks, had)
	return r
}

// written is the score as it is written.
func (r *churnRisk) written() *big.Rat {
	score, _ := new(big.Rat).SetString(string(r.Score))
	return score
}

// height is 2 for a high risk, 1 for a medium and 0 for a low one, by the score as it is written.
func (r *churnRisk) height() int {
	switch score := r.written(); {
	case score.Cmp(big.NewRat(70, 1)) >= 0:
		return 2
	case score.Cmp(big.NewRat(40, 1)) >= 0:
		return 1
	}
	return 0
}

// actions are what to do about a company of whose active users some had calls two months ago.
func actions(risks []churnRisk, had int) []string {
	some := [3]bool{}
	for i := range risks {
		some[risks[i].height()] = true
	}
	all := []string{}
	if some[2] {
		all = append(all, "contact_high_risk_users")
	}
	if len(risks) > 0 && 2*len(risks) >= had {
		all = append(all, "review_account")
	}
	if some[1] {
		all = append(all, "offer_training")
	}
	if some[0] {
		all = append(all, "send_usage_tips")
	}
	return all
}
