package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed queries/business_companies.sql
	businessCompaniesSQL string
	//go:embed queries/business_charges.sql
	businessChargesSQL string
	//go:embed queries/business_measures.sql
	businessMeasuresSQL string
	//go:embed queries/business_isolation.sql
	businessIsolationSQL string
	//go:embed queries/business_latency.sql
	businessLatencySQL string
	//go:embed queries/business_sample_put.sql
	businessSamplePutSQL string
	//go:embed queries/business_report_put.sql
	businessReportPutSQL string
	//go:embed queries/business_report.sql
	businessReportSQL string
	//go:embed queries/business_reports_unpublished.sql
	businessReportsUnpublishedSQL string
	//go:embed queries/business_report_last.sql
	businessReportLastSQL string
)

// A BusinessCompany is what is recorded of a company's subscription, from its registration on.
type BusinessCompany struct {
	CompanyID  string
	Currency   string
	CreatedAt  time.Time
	Tier       string // that it has now; empty: none, it is closed or has no subscription
	PriceMinor int64  // that it pays a month now

	// The effects that moved it, one in each place, in the order in which they were recorded. Effects puts them together.
	Times      []time.Time
	Events     []string
	Tiers      []string
	Prices     []*int64
	Reinstated []bool
}

// Effects are the effects that moved what the company pays a month, in the order in which they were recorded.
func (c *BusinessCompany) Effects() []PriceEffect {
	all := make([]PriceEffect, len(c.Times))
	for i := range all {
		all[i] = PriceEffect{At: c.Times[i], Event: c.Events[i], Tier: c.Tiers[i], PriceMinor: c.Prices[i], Reinstated: c.Reinstated[i]}
	}
	return all
}

// BusinessCompanies returns every company there is or was.
func (s *Store) BusinessCompanies(ctx context.Context) ([]BusinessCompany, error) {
	return collect(ctx, s, "read the history of all subscriptions", pgx.RowToStructByName[BusinessCompany], businessCompaniesSQL)
}

// BusinessCharges returns what all companies were charged for periods that begin at a time or later.
func (s *Store) BusinessCharges(ctx context.Context, since time.Time) ([]MonthCharge, error) {
	return collect(ctx, s, "read what all companies were charged", pgx.RowToStructByName[MonthCharge], businessChargesSQL, since)
}

// A CompanyMeasure is what was measured of the schema of a company.
type CompanyMeasure struct {
	CompanyID string
	Kept      bool   // its subscription says how long closed positions are kept
	Bytes     *int64 // nil: it could not be measured
	Overdue   *bool  // it holds positions beyond that; nil: it could not be measured, or keeps them for ever
}

// CompanyMeasures measures the schemas of all companies, some at a time. Positions may be there for days more than they are kept.
func (s *Store) CompanyMeasures(ctx context.Context, days int) ([]CompanyMeasure, error) {
	var all []CompanyMeasure
	for last := ""; ; last = all[len(all)-1].CompanyID {
		some, err := collect(ctx, s, "measure the schemas of companies", pgx.RowToStructByName[CompanyMeasure], businessMeasuresSQL, last, days)
		if err != nil || len(some) == 0 {
			return all, err
		}
		all = append(all, some...)
	}
}

// An IsolationCheck is what one check of the borders between companies has found.
type IsolationCheck struct {
	Name    string
	Checked int64 // objects or roles
	Leaks   int64 // rights that no company may have
}

// IsolationChecks looks in the catalogues for rights that reach across companies.
func (s *Store) IsolationChecks(ctx context.Context) ([]IsolationCheck, error) {
	return collect(ctx, s, "check the rights of companies' roles", pgx.RowToStructByName[IsolationCheck], businessIsolationSQL)
}

// A QueryLatency is how long queries of the last 24 hours took.
type QueryLatency struct {
	Tier    string
	Route   string // empty: all
	Samples int64
	Queries int64 // that the samples stand for
	P95     time.Duration
}

// QueryLatencies returns how long queries took, by tier and route, and by tier over all routes.
func (s *Store) QueryLatencies(ctx context.Context) ([]QueryLatency, error) {
	return collect(ctx, s, "read how long queries took", pgx.RowToStructByName[QueryLatency], businessLatencySQL)
}

// A QuerySample is one query of a sample.
type QuerySample struct {
	Company string // that it was about
	Route   string
	Took    time.Duration
	Weight  float64 // how many queries it stands for
}

// AddQuerySamples keeps samples of queries for 24 hours. The tier is that of the company now; the company is not kept.
func (s *Store) AddQuerySamples(ctx context.Context, all []QuerySample) error {
	companies, routes, took, weights := make([]string, len(all)), make([]string, len(all)), make([]int64, len(all)), make([]float64, len(all))
	for i, one := range all {
		companies[i], routes[i], took[i], weights[i] = one.Company, one.Route, one.Took.Microseconds(), one.Weight
	}
	_, err := s.exec(ctx, "keep samples of queries", businessSamplePutSQL, companies, routes, took, weights)
	return err
}

// A BusinessReport is a report of business metrics as it is stored.
type BusinessReport struct {
	Slot        time.Time
	ReportedAt  time.Time
	Report      json.RawMessage
	PublishedAt *time.Time // nil: it is not known to be published
}

// PutBusinessReport stores the report of a slot, unless it has one, and returns the one that is stored.
func (s *Store) PutBusinessReport(ctx context.Context, slot, at time.Time, report json.RawMessage) (*BusinessReport, error) {
	if _, err := s.exec(ctx, "store the report of business metrics", businessReportPutSQL, slot, at, report); err != nil {
		return nil, err
	}
	return s.BusinessReport(ctx, slot)
}

// BusinessReport returns the report of a slot; nil: there is none.
func (s *Store) BusinessReport(ctx context.Context, slot time.Time) (*BusinessReport, error) {
	return businessReport(ctx, s, businessReportSQL, slot)
}

// LastBusinessReport returns the newest report, whichever process made it; nil: there is none.
func (s *Store) LastBusinessReport(ctx context.Context) (*BusinessReport, error) {
	return businessReport(ctx, s, businessReportLastSQL)
}

// UnpublishedBusinessReports returns the reports of the last day that are not known to be published, the oldest first.
func (s *Store) UnpublishedBusinessReports(ctx context.Context) ([]BusinessReport, error) {
	return collect(ctx, s, "read the reports of business metrics to publish", pgx.RowToStructByName[BusinessReport], businessReportsUnpublishedSQL)
}

func businessReport(ctx context.Context, s *Store, query string, args ...any) (*BusinessReport, error) {
	found, err := collectOne(ctx, s, "read the report of business metrics", pgx.RowToStructByName[BusinessReport], query, args...)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, err
	}
	return &found, nil
}

// MarkBusinessReport notes that the report of a slot is published.
func (s *Store) MarkBusinessReport(ctx context.Context, slot time.Time) error {
	_, err := s.exec(ctx, "note that the report of business metrics is published",
		"UPDATE public.business_reports SET published_at = clock_timestamp() WHERE slot = $1 AND published_at IS NULL", slot)
	return err
}
