package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"

	"tenantflow/internal/analytics"
	"tenantflow/internal/billing"
	"tenantflow/internal/directory"
)

// Billing makes billing exports. *billing.Exporter implements it.
type Billing interface {
	// Get returns the closed export of a company and a period or, while there is none, a draft. Of a company that is not known the error is
	// directory.ErrUnknown; of periods that have not begun or are too old billing.ErrFuture and billing.ErrTooOld.
	Get(ctx context.Context, company string, period analytics.Month) (*billing.Export, error)
	// Parquet makes a Parquet file of an export.
	Parquet(ctx context.Context, x *billing.Export) ([]byte, error)
}

// billingExport answers GET /v1/companies/{company_id}/billing/{billing_period}: with the bytes of a closed export, or a draft.
func (a *API) billingExport(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) error {
	period, err := billing.ParsePeriod(r.PathValue("billing_period"))
	if err != nil {
		WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: "billing_period is no month in the form YYYY-MM, from 2000-01 on"})
		return nil
	}
	form, given := q.query["format"]
	if !given {
		form = billing.JSON
	}
	if !slices.Contains(billing.Forms(), form) {
		WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: "format is none of " + strings.Join(billing.Forms(), ", ")})
		return nil
	}
	leave, entered := a.enterAnalysis(w, r, q, q.from.Billing != nil)
	if !entered {
		return nil
	}
	defer leave()
	export, err := q.from.Billing.Get(ctx, q.id, period)
	switch {
	case errors.Is(err, directory.ErrUnknown):
		noCompany(w, r)
	case errors.Is(err, billing.ErrFuture):
		WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: billing.ErrFuture.Error()})
	case errors.Is(err, billing.ErrTooOld):
		WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: "no export of the period was closed, and " + billing.ErrTooOld.Error()})
	case err != nil:
		return err
	case form == billing.Parquet:
		file, err := q.from.Billing.Parquet(ctx, export)
		if err != nil {
			return err
		}
		attach(w, export, form)
		w.Header().Set("Content-Type", "application/vnd.apache.parquet")
		_, _ = w.Write(file) // after an error of the connection no client is left to report it to
	default:
		answerExport(w, r, export, form)
	}
	return nil
}

// attach sets the headers of a file of an export.
func attach(w http.ResponseWriter, export *billing.Export, form string) {
	w.Header().Set("Billing-State", export.State)
	if form != billing.JSON {
		w.Header().Set("Content-Disposition", `attachment; filename="`+export.Company+"."+export.Period+"."+form+`"`)
	}
}

// answerExport writes an export. A closed one has an entity tag: its bytes never change.
func answerExport(w http.ResponseWriter, r *http.Request, export *billing.Export, form string) {
	text, sum := export.Content(form)
	kind := "application/json"
	if form == billing.CSV {
		kind = "text/csv; charset=utf-8; header=present"
	}
	attach(w, export, form)
	if raw, err := hex.DecodeString(sum); err == nil && sum != "" {
		tag := `"` + sum + `"`
		w.Header().Set("ETag", tag)
		w.Header().Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(raw)+":") // RFC 9530
		if asked := r.Header.Get("If-None-Match"); asked != "" && slices.ContainsFunc(strings.Split(asked, ","), func(one string) bool {
			one = strings.TrimSpace(one)
			return one == "*" || strings.TrimPrefix(one, "W/") == tag
		}) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(text) // after an error of the connection no client is left to report it to
}
