package directory

import (
	"time"

	"tenantflow/internal/tier"
)

// A Subscription is what is known of one user. Its Document is what stands in subscription:{<user_id>}. What Resolve and
// User return is shared: treat it as read-only.
type Subscription struct {
	// Version rises with every change of what is below: the greatest version of the rows it is made of. It and the origin come
	// first in the JSON: that is where the scripts of the cache look for them.
	Version int64 `json:"version"`
	// Origin is the run of Postgres that the version belongs to.
	Origin    string `json:"cached_from"`
	UserID    string `json:"user_id"`
	CompanyID string `json:"company_id"`
	Email     string `json:"email"`
	// Tier is empty if the company has no subscription. Limits are zero then, and BillingStatus is empty too.
	Tier string `json:"subscription_tier"`
	// Status is the user's own: active, or suspended while the company has more users than its tier allows.
	Status    string     `json:"subscription_status"`
	StartDate *time.Time `json:"subscription_start_date"`
	// EndDate is the end of the current period. Nil: the subscription has no scheduled end.
	EndDate      *time.Time `json:"subscription_end_date"`
	CreatedAt    time.Time  `json:"created_at"`
	UpdatedAt    time.Time  `json:"updated_at"`
	LastActivity *time.Time `json:"last_activity"`
	// Limits are those that hold for the company: its subscription's, copied into it when its period began, and its overrides in place of
	// them.
	Limits tier.Limits `json:"tier_limits" db:"-"`
	// Memberships are the companies the user belonged to, the last 32, the newest first.
	Memberships []Membership `json:"memberships" db:"-"`
	// Quota is how much of the day's quota was used, as last passed to ShowUse, at most QuotaAge ago. It is in what Dragonfly
	// holds only, and left out where nothing was counted lately.
	Quota QuotaBlock `json:"usage_quota,omitzero" db:"-"`
	// BillingStatus is the status of the company's subscription: active, past_due, cancelled or expired; closed if the company is.
	BillingStatus string `json:"billing_status"`
	// CachedAt is when its load from Postgres began.
	CachedAt time.Time `json:"cached_at" db:"-"`
}

// Document is what stands in the cache, to be encoded as JSON: the limits also stand under the name they have in the user's row, all of
// which is to be found there. It shares what s holds. (As a MarshalJSON it took two and a half times as long, since encoding/json reads
// again what one returns.)
func (s *Subscription) Document() any {
	type members Subscription
	document := struct {
		*members
		RowLimits *tier.Limits `json:"subscription_limits"`
	}{members: (*members)(s)}
	if s.Tier != "" {
		document.RowLimits = &s.Limits
	}
	return document
}

// A QuotaBlock is a user's use of one UTC day.
type QuotaBlock struct {
	Date       string     `json:"date"` // YYYY-MM-DD
	APICalls   int64      `json:"api_calls"`
	DataPoints int64      `json:"data_points"`
	DailyLimit tier.Limit `json:"daily_limit"` // API calls
	AsOf       time.Time  `json:"as_of"`
}
