package directory

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tenantflow/internal/tier"
)

// A Company is what Postgres knows of one company.
type Company struct {
	CompanyID    string
	BillingEmail string
	// Tier, Limits and SupportLevel are those of its subscription.
	Tier         string
	Limits       tier.Limits `db:"-"`
	SupportLevel string
	// Config is the company's configuration, a JSON object. What the fields above say comes before what it says. Empty:
	// nothing is configured.
	Config json.RawMessage
	Period Period `db:"-"`
	// Version is the greatest of the rows all this comes from, Origin the run of Postgres that it belongs to.
	Version int64
	Origin  string
}

// A Period is the billing period a subscription is in.
type Period struct {
	Start  *time.Time
	End    *time.Time // nil: no scheduled end
	Status string     // active, past_due, cancelled or expired; closed: the company is
}

// A CompanyConfig is a company's whole configuration. As JSON, one flat object, it is what stands in
// company_config:{<company_id>}. Treat it as read-only.
type CompanyConfig struct {
	CompanyID       string
	Tier            string
	MaxUsers        tier.Limit
	BillingEmail    string
	FeaturesEnabled []string
	SupportLevel    string
	// Settings is everything else the company has configured, by its name.
	Settings map[string]json.RawMessage
	Version  int64
	Origin   string
	CachedAt time.Time
}

// configFields are the members of the object that are not Settings. Version and origin are the first, as in a Subscription.
type configFields struct {
	Version         int64      `json:"version"`
	Origin          string     `json:"cached_from"`
	CompanyID       string     `json:"company_id"`
	Tier            string     `json:"subscription_tier"`
	MaxUsers        tier.Limit `json:"max_users"`
	BillingEmail    string     `json:"billing_email"`
	FeaturesEnabled []string   `json:"features_enabled"`
	SupportLevel    string     `json:"support_level"`
	CachedAt        time.Time  `json:"cached_at"`
}

// configNames are the names of configFields.
var configNames = []string{ //nolint:gochecknoglobals // a constant table
	"company_id", "subscription_tier", "max_users", "billing_email", "features_enabled", "support_level", "version", "cached_from", "cached_at",
}

// MarshalJSON makes one flat object.
func (c CompanyConfig) MarshalJSON() ([]byte, error) {
	own, err := json.Marshal(configFields{c.Version, c.Origin, c.CompanyID, c.Tier, c.MaxUsers, c.BillingEmail, c.FeaturesEnabled, c.SupportLevel, c.CachedAt})
	if err != nil || len(c.Settings) == 0 {
		return own, err
	}
	settings, err := json.Marshal(c.Settings)
	if err != nil {
		return nil, err
	}
	return append(append(own[:len(own)-1], ','), settings[1:]...), nil
}

// UnmarshalJSON reads what MarshalJSON makes.
func (c *CompanyConfig) UnmarshalJSON(text []byte) error {
	var f configFields
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	settings, err := settings(text)
	if err != nil {
		return err
	}
	*c = CompanyConfig{f.CompanyID, f.Tier, f.MaxUsers, f.BillingEmail, f.FeaturesEnabled, f.SupportLevel, settings, f.Version, f.Origin, f.CachedAt}
	return nil
}

// settings returns the members of an object that are not configFields.
func settings(text []byte) (map[string]json.RawMessage, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	// Also those that differ in case only: decoders take them for the same.
	maps.DeleteFunc(all, func(name string, _ json.RawMessage) bool {
		return slices.ContainsFunc(configNames, func(own string) bool { return strings.EqualFold(name, own) })
	})
	return all, nil
}

// A BillingPeriod is what stands in billing_period:{<company_id>}. Treat it as read-only.
type BillingPeriod struct {
	Version     int64      `json:"version"`
	Origin      string     `json:"cached_from"`
	CompanyID   string     `json:"company_id"`
	PeriodStart *time.Time `json:"period_start"`
	PeriodEnd   *time.Time `json:"period_end"` // null: no scheduled end
	Status      string     `json:"status"`     // active, past_due, cancelled or expired; closed: the company is
	CachedAt    time.Time  `json:"cached_at"`
}

// documents makes of a company what is cached of it.
func (c *Company) documents(version int64, at time.Time) (*CompanyConfig, *BillingPeriod, error) {
	settings, err := settings(c.Config)
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration of company %s: %w", c.CompanyID, err)
	}
	features := c.Limits.Features
	if features == nil {
		features = []string{}
	}
	config := &CompanyConfig{CompanyID: c.CompanyID, Tier: c.Tier, MaxUsers: c.Limits.MaxUsers, BillingEmail: c.BillingEmail,
		FeaturesEnabled: features, SupportLevel: c.SupportLevel, Settings: settings, Version: version, Origin: c.Origin, CachedAt: at}
	period := &BillingPeriod{CompanyID: c.CompanyID, PeriodStart: c.Period.Start, PeriodEnd: c.Period.End, Status: c.Period.Status,
		Version: version, Origin: c.Origin, CachedAt: at}
	return config, period, nil
}
