package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// Codes of what is refused because the company is closed, or because the new period could not be written as RFC 3339.
const (
	companyClosed = "company_closed"
	invalidPeriod = "invalid_period"
)

// preview answers GET /v1/companies/{company_id}/subscription/preview: what a request for another tier would do at a time. The rules
// that carry it out decide it, in the state that they would see then.
func (a *API) preview(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) error {
	newTier, at, problem := a.previewOf(q.query)
	if problem != "" {
		WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: problem})
		return nil
	}
	s, there, err := subscriptionOf(ctx, w, r, q)
	if !there {
		return err
	}
	answer, err := previewChange(q.from.Rules, s, newTier, at)
	var refusal *tier.Refusal
	if errors.As(err, &refusal) {
		WriteProblem(w, r, Problem{Status: http.StatusConflict, Code: refusal.Code, Detail: refusal.Message})
		return nil
	}
	if err != nil {
		return err
	}
	return answerJSON(w, answer)
}

// previewOf reads the parameters of a preview, or says what is wrong with them.
func (a *API) previewOf(query map[string]string) (newTier string, at time.Time, problem string) {
	newTier, given := query["new_tier"]
	switch {
	case !given:
		return "", at, "new_tier is needed: the tier to change to"
	case !events.ValidTier(newTier):
		return "", at, "new_tier is not 1 to 20 of a-z, 0-9, '_' and '-'"
	}
	text, given := query["at"]
	if !given {
		return newTier, a.now(), ""
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "", at, "at is not a time like 2026-11-23T12:00:00Z (RFC 3339; a + in it is written %2B)"
	}
	if !events.ValidTime(at) { // what begins in the last year ends in one of four digits
		return "", at, fmt.Sprintf("at is not a time of the years %d to %d", events.FirstYear, events.LastYear)
	}
	return newTier, at, ""
}

// previewAnswer is the body of an answer.
type previewAnswer struct {
	CompanyID string `json:"company_id"`
	Change    string `json:"change"` // upgrade or downgrade
	// CurrentTier is the one held when the change is asked for: what is due before is applied before.
	CurrentTier string `json:"current_tier"`
	NewTier     string `json:"new_tier"`
	PriceMinor  int64  `json:"price_minor"` // of a month on the new tier
	Currency    string `json:"currency"`
	changeAnswer
	Limits       tier.Limits                 `json:"limits"`
	Benefits     map[string]any              `json:"benefits"`
	Restrictions map[string]tier.Restriction `json:"restrictions_applied"`
	// UsersSuspended is how many users there is no room for after the change.
	UsersSuspended int64 `json:"users_suspended"`
	// Immediate is what a downgrade does that does not wait for the period's end.
	Immediate *changeAnswer `json:"immediate,omitempty"`
}

type changeAnswer struct {
	EffectiveDate     time.Time       `json:"effective_date"`
	BillingAdjustment tier.Adjustment `json:"billing_adjustment"`
}

// previewChange says what a request for another tier does at a time: what the rules decide, on a copy of what they would see then. An
// error may be a *tier.Refusal.
func previewChange(rules *tenant.Rules, s postgres.CompanySubscription, newTier string, at time.Time) (*previewAnswer, error) {
	if s.CompanyStatus != statusActive {
		return nil, &tier.Refusal{Code: companyClosed, Message: "the company is closed"}
	}
	p, err := rules.Preview(s.State(), newTier, at)
	if err != nil {
		return nil, err
	}
	to := p.To
	answer := &previewAnswer{CompanyID: s.CompanyID, Change: "upgrade", CurrentTier: p.Held.Tier, NewTier: newTier, Currency: tier.Currency,
		PriceMinor: to.PriceMinor, changeAnswer: changeOf(p.Change), Limits: p.Limits, Benefits: to.Benefits,
		Restrictions: tier.Restrictions(p.HeldLimits, p.Limits, nil)}
	if p.Down {
		now := changeOf(p.Now)
		answer.Change, answer.Immediate = "downgrade", &now
	}
	if room := p.Limits.MaxUsers; room != tier.Unlimited {
		answer.UsersSuspended = max(0, s.ActiveUsers+s.SuspendedUsers-int64(room))
	}
	for _, c := range []*changeAnswer{&answer.changeAnswer, answer.Immediate} {
		if c != nil && max(c.EffectiveDate.UTC().Year(), c.BillingAdjustment.PeriodEnd.UTC().Year()) > events.LastYear+1 {
			return nil, &tier.Refusal{Code: invalidPeriod, Message: "the period would end beyond the year 9999"}
		}
	}
	return answer, nil
}

func changeOf(d *tenant.Decision) changeAnswer {
	return changeAnswer{d.At, d.Transaction.Adjustment}
}
