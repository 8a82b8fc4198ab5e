package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
)

//go:embed subscription.sql
var subscriptionSQL string

// CompanySubscription is all that is known of the subscription of one company.
type CompanySubscription struct {
	CompanyID     string
	CompanyStatus string // active or closed
	// State is the subscription itself, as of the last event: what has become due since is not applied yet.
	tier.State
	Currency string
	// PreviousTier is the tier that an expiry has ended; empty: none has.
	PreviousTier string
	// Limits and Benefits are those the period began with. Benefits is a JSON object.
	Limits   tier.Limits
	Benefits json.RawMessage
	// LastEffect is the time of the last event; nothing takes effect before it. Zero: there was none, it was made by hand.
	LastEffect                  time.Time
	ActiveUsers, SuspendedUsers int64
}

// Subscription returns the subscription of a company. Of an unknown company, of one that was purged and of one without a
// subscription the error is directory.ErrUnknown.
func (s *Store) Subscription(ctx context.Context, company string) (CompanySubscription, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var c CompanySubscription
	var limits []byte
	var grace, last *time.Time
	err := s.pool.QueryRow(ctx, subscriptionSQL, company).Scan(&c.CompanyID, &c.CompanyStatus, &c.Tier, &c.Status, &c.PeriodStart, &c.PeriodEnd,
		&c.AnchorDay, &c.PriceMinor, &c.Currency, &c.PendingTier, &c.CancelAtPeriodEnd, &grace, &c.PreviousTier, &limits, &c.Benefits, &last,
		&c.ActiveUsers, &c.SuspendedUsers)
	if errors.Is(err, pgx.ErrNoRows) {
		return CompanySubscription{}, fmt.Errorf("look the subscription of company %q up in Postgres: %w", company, directory.ErrUnknown)
	}
	if err == nil {
		c.Limits, err = limitsReader{}.read(limits)
	}
	if err != nil {
		return CompanySubscription{}, explain("look a subscription up", err)
	}
	if grace != nil {
		c.GraceUntil = *grace
	}
	if last != nil {
		c.LastEffect = *last
	}
	return c, nil
}
