// Package tier holds the catalogue of subscription tiers: their prices, limits and benefits, which changes between them are allowed,
// and what a change costs. It is pure: nothing here reads a store or a clock.
package tier

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// A Limit is a number of something a tier allows: zero or more, or Unlimited. In JSON it is that number, or the string
// "unlimited".
type Limit int64

// Unlimited is the Limit that nothing exceeds.
const Unlimited Limit = -1

// String returns the number, or "unlimited".
func (l Limit) String() string {
	if l == Unlimited {
		return "unlimited"
	}
	return strconv.FormatInt(int64(l), 10)
}

// MarshalJSON writes the number, or "unlimited" as a string.
func (l Limit) MarshalJSON() ([]byte, error) {
	if l == Unlimited {
		return []byte(`"unlimited"`), nil
	}
	return strconv.AppendInt(nil, int64(l), 10), nil
}

// UnmarshalJSON reads what MarshalJSON writes. A negative number, a fraction and any other string are errors.
func (l *Limit) UnmarshalJSON(data []byte) error {
	if string(data) == `"unlimited"` {
		*l = Unlimited
		return nil
	}
	var n int64
	if err := json.Unmarshal(data, &n); err != nil || n < 0 || string(data) == "null" {
		return fmt.Errorf(`a limit is a whole number from 0 on or "unlimited", not %s`, data)
	}
	*l = Limit(n)
	return nil
}

// Limits are what a subscription allows. A subscription keeps the ones its period has started with, whatever the
// catalogue says later.
type Limits struct {
	// DailyAPICalls is how many calls a user may make in one UTC day.
	DailyAPICalls Limit `json:"daily_api_calls"`
	// DailyDataPoints is how many data points a user may use in one UTC day; nil: there is no such limit. Only reservations ask for it.
	// Copies of these limits share it: Set puts another one in its place.
	DailyDataPoints *Limit `json:"daily_data_points,omitempty"`
	// StorageMB is how large the company's schema may be, in MiB.
	StorageMB Limit `json:"storage_mb"`
	// MaxUsers is how many users of the company may be active.
	MaxUsers Limit `json:"max_users"`
	// RetentionDays is how long closed trading positions are kept. No tier keeps them without limit; an override may.
	RetentionDays Limit `json:"retention_days"`
	// Features are the names of what the company may use, in the catalogue's order.
	Features []string `json:"features_enabled"`
}

// DataPoints is how many data points a user may use in one UTC day.
func (l *Limits) DataPoints() Limit {
	if l.DailyDataPoints == nil {
		return Unlimited
	}
	return *l.DailyDataPoints
}
