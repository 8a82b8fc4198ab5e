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

//go:embed queries/subscription.sql
var subscriptionSQL string

// CompanySubscription is all that is known of the subscription of one company.
type CompanySubscription struct {
	CompanyID     string
	CompanyStatus string // active or closed
	// Subscription is as of the last event: what came due since is not applied yet.
	tenant.Subscription
	// Overrides are the limits that hold in place of the subscription's.
	Overrides tenant.Overrides
	Books     tenant.Books `db:"-"`
	Ahead     tenant.Ahead `db:"-"`
	// LastEffect is the time of the last event of subscription.events; none takes effect before it. Zero: there was none.
	LastEffect                  time.Time `db:"-"`
	ActiveUsers, SuspendedUsers int64
}

// State is what the rules look at, as far as a request for another tier depends on it.
func (c *CompanySubscription) State() *tenant.State {
	held := c.Subscription
	return &tenant.State{CompanyID: c.CompanyID, Company: &tenant.Company{Status: c.CompanyStatus, Currency: c.Currency}, Subscription: &held, Overrides: c.Overrides,
		Books: c.Books, Ahead: c.Ahead, LastEffect: c.LastEffect}
}

// A subscriptionRow is the row of subscription.sql.
type subscriptionRow struct {
	CompanySubscription
	heldRow
}

// Subscription returns the subscription of a company. Of an unknown company, of one that was purged and of one without a
// subscription the error is directory.ErrUnknown.
func (s *Store) Subscription(ctx context.Context, company string) (CompanySubscription, error) {
	row, err := collectOne(ctx, s, "look a subscription up", pgx.RowToStructByName[subscriptionRow], subscriptionSQL, company)
	if errors.Is(err, pgx.ErrNoRows) {
		return CompanySubscription{}, fmt.Errorf("look the subscription of company %q up in Postgres: %w", company, directory.ErrUnknown)
	}
	if err != nil {
		return CompanySubscription{}, err
	}
	c := row.CompanySubscription
	row.complete(&c.Subscription)
	c.Books, c.Ahead = row.heldRow.Books, row.ahead()
	if row.EffectAt != nil {
		c.LastEffect = row.EffectAt.UTC()
	}
	return c, nil
}
