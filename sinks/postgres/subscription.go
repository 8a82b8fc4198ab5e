package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
	"tenantflow/internal/tenant"
)

//go:embed subscription.sql
var subscriptionSQL string

// CompanySubscription is all that is known of the subscription of one company.
type CompanySubscription struct {
	CompanyID     string
	CompanyStatus string // active or closed
	// Subscription is as of the last event: what came due since is not applied yet.
	tenant.Subscription
	Books tenant.Books
	// LastEffect is the time of the last event of subscription.events; none takes effect before it. Zero: there was none.
	LastEffect                  time.Time
	ActiveUsers, SuspendedUsers int64
}

// State is what the rules look at, as far as a request for another tier depends on it.
func (c *CompanySubscription) State() *tenant.State {
	held := c.Subscription
	return &tenant.State{CompanyID: c.CompanyID, Company: &tenant.Company{Status: c.CompanyStatus, Currency: c.Currency}, Subscription: &held,
		Books: c.Books, LastEffect: c.LastEffect}
}

// Subscription returns the subscription of a company. Of an unknown company, of one that was purged and of one without a
// subscription the error is directory.ErrUnknown.
func (s *Store) Subscription(ctx context.Context, company string) (CompanySubscription, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var c CompanySubscription
	var limits, benefits, renewal, expired []byte
	var last, nextStart, nextEnd *time.Time
	err := s.pool.QueryRow(ctx, subscriptionSQL, company).Scan(&c.CompanyID, &c.CompanyStatus, &c.Tier, &c.Status, &c.PeriodStart, &c.PeriodEnd,
		&c.Months, &c.AnchorDay, &c.PriceMinor, &c.Currency, &c.PendingTier, &c.PendingAt, &c.CancelAtEnd, &c.GraceUntil, &c.RenewalUntil,
		&nextStart, &nextEnd, &renewal, &c.Failed, &expired, &limits, &benefits, &c.Books.Charged, &c.Books.Tiers, &c.Books.Received, &last,
		&c.ActiveUsers, &c.SuspendedUsers)
	if errors.Is(err, pgx.ErrNoRows) {
		return CompanySubscription{}, fmt.Errorf("look the subscription of company %q up in Postgres: %w", company, directory.ErrUnknown)
	}
	if err == nil {
		c.PeriodStart, c.PeriodEnd = c.PeriodStart.UTC(), c.PeriodEnd.UTC()
		if renewal != nil {
			c.Renewal = &tenant.Renewal{Start: nextStart.UTC(), End: nextEnd.UTC()}
		}
		err = readTerms(company, &c.Subscription, limits, benefits, renewal, expired)
	}
	if err != nil {
		return CompanySubscription{}, explain("look a subscription up", err)
	}
	if last != nil {
		c.LastEffect = last.UTC()
	}
	return c, nil
}
