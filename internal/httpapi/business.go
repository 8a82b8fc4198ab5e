package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"tenantflow/internal/business"
	"tenantflow/internal/token"
)

// businessTimeout is how long the stores may take for the business metrics, which look at every company.
const businessTimeout = 10 * time.Second

// Business computes the business metrics, as of a time. *business.Meter implements it.
type Business interface {
	Report(ctx context.Context, at time.Time) (*business.Report, error)
}

// A Sampler takes notes of queries about companies. *business.Samples implements it.
type Sampler interface {
	// Observe notes how long the answer to a query about a company took. It does not wait for a store.
	Observe(route, company string, took time.Duration)
}

// businessMetrics answers GET /v1/business-metrics.
func (a *API) businessMetrics(w http.ResponseWriter, r *http.Request, grant *token.Grant) {
	if !aboutAll(w, r, grant) {
		return
	}
	a.answerWithin(businessTimeout, w, r, request{grant: grant}, func(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) error {
		if q.from.Business == nil {
			WriteProblem(w, r, Problem{Status: http.StatusServiceUnavailable, Detail: noClickHouse})
			return nil
		}
		report, err := a.computed(ctx, q.from.Business)
		if err != nil {
			return err
		}
		return answerJSON(w, report)
	})
}

// computed computes the business metrics once for all who ask while they are being computed: they are the same for all, and ask a lot of the stores.
func (a *API) computed(ctx context.Context, from Business) (*business.Report, error) {
	found := a.business.DoChan("", func() (any, error) {
		// It is not the first request's alone, so it does not end with that.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), businessTimeout)
		defer cancel()
		return from.Report(ctx, a.now())
	})
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case one := <-found:
		if one.Err != nil {
			return nil, one.Err
		}
		report, ok := one.Val.(*business.Report)
		if !ok {
			return nil, fmt.Errorf("compute the business metrics: got a %T", one.Val)
		}
		return report, nil
	}
}

// sample notes how long a query about a company took, if a store was asked for the answer. A client that did not wait is in it, with the time until
// it left: else the slowest answers would be missing.
func (a *API) sample(w http.ResponseWriter, r *http.Request, company string, took time.Duration) {
	from := a.stores.Load()
	s, ok := w.(*statusWriter)
	if company == "" || from == nil || from.Samples == nil || !ok || s.status != http.StatusOK && s.status != statusClientGone && s.status < http.StatusInternalServerError {
		return
	}
	route := r.Pattern
	if _, path, found := strings.Cut(route, " "); found {
		route = path
	}
	from.Samples.Observe(route, company, took)
}
