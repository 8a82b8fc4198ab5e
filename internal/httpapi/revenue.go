package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"tenantflow/internal/analytics"
)

// revenue answers GET /v1/companies/{company_id}/revenue.
func (a *API) revenue(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) error {
	months, wrong := monthsOf(q.query)
	if wrong != "" {
		WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: wrong})
		return nil
	}
	return a.analyse(func(ctx context.Context, from Analytics, q request, now time.Time) (any, error) {
		return from.Revenue(ctx, q.id, months, now)
	})(ctx, w, r, q)
}

// monthsOf reads the parameter months, or says what is wrong with it.
func monthsOf(query map[string]string) (months int, wrong string) {
	text, given := query["months"]
	if !given {
		return analytics.DefaultMonths, ""
	}
	months, err := strconv.Atoi(text)
	if err != nil || months < 1 || months > analytics.MaxMonths || text != strconv.Itoa(months) {
		return 0, fmt.Sprintf("months is no whole number from 1 to %d", analytics.MaxMonths)
	}
	return months, ""
}
