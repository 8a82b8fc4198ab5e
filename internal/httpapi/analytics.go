package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/directory"
)

// What analyses may be under way at once. They are requests of /v1 as well and count among those. While ClickHouse hangs, they must not
// take the places of requests that don't need it: the numbers are well below those of all requests.
const (
	maxAnalyses = 64
	// maxAnalysesShare is one token's part of it, so that one who asks a lot leaves places for the others.
	maxAnalysesShare = 32
	// reservedAnalyses is what a token may have under way whatever the others do.
	reservedAnalyses = 4
)

// noClickHouse is what a process says that can't analyse anything.
const noClickHouse = "analyses need ClickHouse, and this process has no address of it: TENANTFLOW_CLICKHOUSE_DSN is not set"

// Analytics answers questions about companies' business, as of a time. Its error is directory.ErrUnknown for a company that is not known.
// *analytics.Analyst implements it.
type Analytics interface {
	// Upsell lists users who need a larger tier.
	Upsell(ctx context.Context, company string, at time.Time) ([]analytics.Opportunity, error)
	// ChurnRisk reports which users may leave.
	ChurnRisk(ctx context.Context, company string, at time.Time) (*analytics.ChurnReport, error)
	// Revenue reports what a company was charged in a number of months, the present one included.
	Revenue(ctx context.Context, company string, months int, at time.Time) (*analytics.Revenue, error)
}

// upsell answers GET /v1/companies/{company_id}/upsell.
func upsell(ctx context.Context, from Analytics, q request, now time.Time) (any, error) {
	return from.Upsell(ctx, q.id, now)
}

// churnRisk answers GET /v1/companies/{company_id}/churn-risk.
func churnRisk(ctx context.Context, from Analytics, q request, now time.Time) (any, error) {
	return from.ChurnRisk(ctx, q.id, now)
}

// analyse makes the endpoint of an analysis: it answers with what ask returns, as JSON.
func (a *API) analyse(ask func(ctx context.Context, from Analytics, q request, now time.Time) (any, error)) endpoint {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) error {
		leave, entered := a.enterAnalysis(w, r, q, q.from.Analytics != nil)
		if !entered {
			return nil
		}
		defer leave()
		answer, err := ask(ctx, q.from.Analytics, q, a.now())
		switch {
		case errors.Is(err, directory.ErrUnknown):
			noCompany(w, r)
			return nil
		case err != nil:
			return err
		}
		return answerJSON(w, answer)
	}
}

// enterAnalysis reports whether a request that needs ClickHouse may be answered; then leave must be called when it is. Otherwise it was answered. possible: this process
// has ClickHouse.
func (a *API) enterAnalysis(w http.ResponseWriter, r *http.Request, q request, possible bool) (leave func(), entered bool) {
	if !q.grant.Allows(q.id) {
		noCompany(w, r)
		return nil, false
	}
	if !possible {
		WriteProblem(w, r, Problem{Status: http.StatusServiceUnavailable, Detail: noClickHouse})
		return nil, false
	}
	if !a.analyses.enter(q.grant.Name) {
		w.Header().Set("Retry-After", retryAfter)
		WriteProblem(w, r, Problem{Status: http.StatusTooManyRequests, Detail: "too many analyses of this token are under way"})
		return nil, false
	}
	return func() { a.analyses.leave(q.grant.Name) }, true
}
