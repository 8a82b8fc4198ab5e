package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"tenantflow/internal/directory"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
	"tenantflow/sinks/postgres"
)

// noCompany answers that there is no such company: one that is not known, was purged, has no subscription, or is outside the
// token's scope. They look the same. The last is not even looked up, whether it exists or not.
func noCompany(w http.ResponseWriter, r *http.Request) {
	WriteProblem(w, r, Problem{Status: http.StatusNotFound, Detail: "there is no such company"})
}

// companyConfig answers GET /v1/companies/{company_id}/config.
func (a *API) companyConfig(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) error {
	if !q.grant.Allows(q.id) {
		noCompany(w, r)
		return nil
	}
	c, err := q.from.Configs.CompanyConfig(ctx, q.id)
	switch {
	case errors.Is(err, directory.ErrUnknown):
		noCompany(w, r)
		return nil
	case err != nil:
		return err
	case c.Tier == "": // no subscription, no limits: there is no whole configuration
		noCompany(w, r)
		return nil
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return err
	}
	for _, own := range []string{"cached_from", "cached_at"} { // which are the cache's and not the company's
		delete(members, own)
	}
	return answerJSON(w, members)
}

// subscriptionOf reads the subscription of the company that is asked about. If it is not there, or the token does not reach it, that was
// answered.
func subscriptionOf(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) (s postgres.CompanySubscription, there bool, err error) {
	if q.grant.Allows(q.id) {
		s, err = q.from.Companies.Subscription(ctx, q.id)
	}
	if !q.grant.Allows(q.id) || errors.Is(err, directory.ErrUnknown) {
		noCompany(w, r)
		return s, false, nil
	}
	return s, err == nil, err
}

// companySubscription answers GET /v1/companies/{company_id}/subscription.
func (a *API) companySubscription(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) error {
	s, there, err := subscriptionOf(ctx, w, r, q)
	if !there {
		return err
	}
	answer := subscriptionAnswer{CompanyID: s.CompanyID, CompanyStatus: s.CompanyStatus, Tier: s.Tier, Status: s.Status,
		PeriodStart: s.PeriodStart.UTC(), PeriodEnd: s.PeriodEnd.UTC(), PeriodMonths: s.Months, PriceMinor: s.PriceMinor, Currency: s.Currency,
		PendingTier: s.PendingTier, PendingAt: timeOf(s.PendingAt), CancelAtPeriodEnd: s.CancelAtEnd, RenewalUntil: timeOf(s.RenewalUntil),
		Limits: s.Overrides.Over(s.Limits), Overrides: overridesOf(s.Overrides), Benefits: s.Benefits, Users: usersAnswer{s.ActiveUsers, s.SuspendedUsers}}
	if s.Status == tenant.StatusPastDue {
		answer.GraceUntil = timeOf(s.GraceUntil)
	}
	if s.Renewal != nil {
		answer.NextPeriodStart, answer.NextPeriodEnd = s.Renewal.Start.UTC(), s.Renewal.End.UTC()
	}
	if s.Expired != nil {
		answer.PreviousTier = s.Expired.Tier
	}
	return answerJSON(w, answer)
}

// timeOf is a time, or zero for none.
func timeOf(at *time.Time) time.Time {
	if at == nil {
		return time.Time{}
	}
	return at.UTC()
}

// subscriptionAnswer is the body of an answer.
type subscriptionAnswer struct {
	CompanyID         string           `json:"company_id"`
	CompanyStatus     string           `json:"company_status"`
	Tier              string           `json:"tier"`
	Status            string           `json:"status"`
	PeriodStart       time.Time        `json:"period_start"`
	PeriodEnd         time.Time        `json:"period_end"`
	PeriodMonths      int              `json:"period_months"`
	PriceMinor        int64            `json:"price_minor"` // of a month
	Currency          string           `json:"currency"`
	PendingTier       string           `json:"pending_tier,omitempty"`
	PendingAt         time.Time        `json:"pending_at,omitzero"`
	CancelAtPeriodEnd bool             `json:"cancel_at_period_end"`
	GraceUntil        time.Time        `json:"grace_until,omitzero"`
	RenewalUntil      time.Time        `json:"renewal_until,omitzero"`
	NextPeriodStart   time.Time        `json:"next_period_start,omitzero"`
	NextPeriodEnd     time.Time        `json:"next_period_end,omitzero"`
	PreviousTier      string           `json:"previous_tier,omitempty"`
	Limits            tier.Limits      `json:"limits"` // that hold: the tier's, and the overrides in place of them
	Overrides         []overrideAnswer `json:"overrides"`
	Benefits          map[string]any   `json:"benefits"`
	Users             usersAnswer      `json:"users"`
}

// overrideAnswer is a limit that holds in place of the tier's. Why is the operators' own.
type overrideAnswer struct {
	Limit     string     `json:"limit_name"`
	Value     tier.Limit `json:"value"`
	SetAt     time.Time  `json:"set_at"`
	ExpiresAt time.Time  `json:"expires_at,omitzero"`
}

func overridesOf(all tenant.Overrides) []overrideAnswer {
	answers := make([]overrideAnswer, len(all))
	for i := range all {
		answers[i] = overrideAnswer{all[i].Limit, all[i].Value, all[i].SetAt.UTC(), timeOf(all[i].ExpiresAt)}
	}
	return answers
}

type usersAnswer struct {
	Active    int64 `json:"active"`
	Suspended int64 `json:"suspended"`
}

// answerJSON sends a value. An error is one of the value: nothing has been sent then.
func answerJSON(w http.ResponseWriter, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // after an error of the connection no client is left to report it to
	return nil
}
