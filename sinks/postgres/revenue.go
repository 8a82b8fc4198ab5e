package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
)

//go:embed queries/revenue.sql
var revenueSQL string

// CompanyRevenue is what is recorded of what a company pays, as of one moment.
type CompanyRevenue struct {
	Currency  string // the company's own
	CreatedAt time.Time
	// PriceMinor is what it pays a month now; 0 once its subscription ended with it.
	PriceMinor int64
	Charges    []MonthCharge
	Effects    []PriceEffect    // in the order in which they were recorded
	Prices     map[string]int64 // of a month today, by tier of the catalogue, in minor units
}

// A MonthCharge is what a company was charged for the periods of one tier that begin in one month.
type MonthCharge struct {
	Month       string `json:"month"` // YYYY-MM, in UTC
	Tier        string `json:"tier"`
	Currency    string `json:"currency"`
	AmountMinor int64  `json:"amount_minor"` // never 0 in a single charge, but credits of older versions may make it so
}

// A PriceEffect is an effect that may have changed what a company pays a month.
type PriceEffect struct {
	At         time.Time `json:"at"`
	Event      string    `json:"event"`       // as in subscription_events
	Tier       string    `json:"tier"`        // that holds from then on, or that was left; empty: the record does not say
	PriceMinor *int64    `json:"price_minor"` // of a month from then on; nil: the record is of before it was kept
	Reinstated bool      `json:"reinstated"`
}

// Revenue returns what a company was charged and the effects that moved what it pays a month. Of an unknown company, of one that was purged
// and of one without a subscription the error is directory.ErrUnknown.
func (s *Store) Revenue(ctx context.Context, company string) (CompanyRevenue, error) {
	found, err := collectOne(ctx, s, "read what a company was charged", pgx.RowToStructByName[CompanyRevenue], revenueSQL, company)
	if errors.Is(err, pgx.ErrNoRows) {
		return CompanyRevenue{}, fmt.Errorf("look up in Postgres what company %q was charged: %w", company, directory.ErrUnknown)
	}
	return found, err
}
