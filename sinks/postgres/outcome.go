package postgres

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed queries/churn_outcomes.sql
	churnOutcomesSQL string
	//go:embed queries/upsell_outcomes.sql
	upsellOutcomesSQL string
	//go:embed queries/forecast_outcomes.sql
	forecastOutcomesSQL string
)

// A ChurnOutcome is how many users were judged alike at the end of a month, and did the same in the month behind it.
type ChurnOutcome struct {
	Month   string
	Score   int64 // in hundredths
	Flagged bool
	Idle    bool // no call in the last 14 days of the month
	Outcome bool // they have left
	Active  bool // they made a call in the month
	Users   int64
	Late    int64 // of them: judged when more than three days of the month behind were over
}

// ChurnOutcomes returns what is known of the users who were judged at the ends of some months, in any order.
func (s *Store) ChurnOutcomes(ctx context.Context, first, last string) ([]ChurnOutcome, error) {
	return collect(ctx, s, "read which users have left", pgx.RowToStructByName[ChurnOutcome], churnOutcomesSQL, first, last)
}

// An UpsellOutcome is how many companies of one tier had, at the end of a month, users for whom a larger one was recommended, or only others, and how
// many of the companies were upgraded in the month behind it.
type UpsellOutcome struct {
	Month       string
	Tier        string
	Recommended bool
	Companies   int64
	Upgraded    int64
	Users       int64 // for whom it was recommended
}

// UpsellOutcomes returns what is known of the companies with users at the ends of some months, in any order.
func (s *Store) UpsellOutcomes(ctx context.Context, first, last string) ([]UpsellOutcome, error) {
	return collect(ctx, s, "read which companies were upgraded", pgx.RowToStructByName[UpsellOutcome], upsellOutcomesSQL, first, last)
}

// A ForecastOutcome is a forecast and what came of it, in minor units.
type ForecastOutcome struct {
	Distance                            int // months behind the last one that the forecast knows
	ValueMinor, LowMinor, HighMinor     int64
	NaiveMinor, ActualMinor, StepsMinor int64
	HistoryMonths                       int64
}

// ForecastOutcomes returns the forecasts for some months whose actual values are known, in any order.
func (s *Store) ForecastOutcomes(ctx context.Context, first, last string) ([]ForecastOutcome, error) {
	return collect(ctx, s, "read what became of forecasts", pgx.RowToStructByName[ForecastOutcome], forecastOutcomesSQL, first, last)
}
