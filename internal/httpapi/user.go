package httpapi

import (
	"context"
	"errors"
	"math"
	"math/bits"
	"net/http"
	"strconv"
	"time"

	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
)

// Why a user may not use the service.
const (
	noSubscription        = "no_subscription"
	userSuspended         = "user_suspended"
	subscriptionCancelled = "subscription_cancelled"
	subscriptionExpired   = "subscription_expired"
	subscriptionInactive  = "subscription_inactive"
)

// The values of a subscription's status and of a user's own.
const (
	statusActive    = "active"
	statusPastDue   = "past_due"
	statusCancelled = "cancelled"
	statusExpired   = "expired"
	statusClosed    = "closed" // of the company
)

// user returns the subscription of the user a request asks about; nil: there is none, or the token may not know of it.
// The two can't be distinguished: a token with a scope asks for a user of its companies, and the stores find none.
func user(ctx context.Context, q request) (s *directory.Subscription, err error) {
	if q.grant.Everything() {
		s, err = q.from.Subscriptions.User(ctx, q.id)
	} else {
		s, err = q.from.Subscriptions.UserIn(ctx, q.id, q.grant)
	}
	if errors.Is(err, directory.ErrUnknown) {
		return nil, nil
	}
	if err == nil && q.company != nil {
		*q.company = s.CompanyID
	}
	return s, err
}

// Refusal says why a user may not use the service, as the answers do: no_subscription, user_suspended,
// subscription_cancelled, ... It is empty if the user may. A payment that is overdue closes nothing: the end of the grace
// period does, by making the subscription expire. What is left of a subscription that was cancelled or has expired is the
// free tier, which may be used; of a closed company nothing may. No subscription (nil) is what an unknown user has.
func Refusal(s *directory.Subscription) string {
	switch {
	case s == nil || s.BillingStatus == "":
		return noSubscription
	case s.Status != statusActive:
		return userSuspended
	}
	switch s.BillingStatus {
	case statusActive, statusPastDue:
		return ""
	case statusCancelled, statusExpired:
		if s.Tier == tier.Free {
			return ""
		}
		if s.BillingStatus == statusExpired {
			return subscriptionExpired
		}
		return subscriptionCancelled
	case statusClosed:
		return subscriptionCancelled
	default:
		return subscriptionInactive
	}
}

// subscription answers GET /v1/users/{user_id}/subscription.
func (a *API) subscription(ctx context.Context, w http.ResponseWriter, _ *http.Request, q request) error {
	s, err := user(ctx, q)
	if err != nil {
		return err
	}
	o := newObject()
	reason := Refusal(s)
	o.boolean("valid", reason == "")
	if reason != "" {
		o.text("reason", reason)
	}
	if reason != noSubscription {
		o.text("user_id", s.UserID)
		o.text("company_id", s.CompanyID)
		o.text("tier", s.Tier)
		o.text("status", s.Status)
		o.text("billing_status", s.BillingStatus)
		o.open("limits")
		o.limit("daily_api_calls", s.Limits.DailyAPICalls)
		if s.Limits.DailyDataPoints != nil {
			o.limit("daily_data_points", *s.Limits.DailyDataPoints)
		}
		o.limit("storage_mb", s.Limits.StorageMB)
		o.limit("max_users", s.Limits.MaxUsers)
		o.limit("retention_days", s.Limits.RetentionDays)
		o.texts("features_enabled", s.Limits.Features)
		o.close()
		if s.StartDate != nil {
			o.time("start_date", *s.StartDate)
		}
		if s.EndDate != nil {
			o.time("end_date", *s.EndDate)
		}
	}
	o.answer(w)
	return nil
}

// quota answers GET /v1/users/{user_id}/quota.
func (a *API) quota(ctx context.Context, w http.ResponseWriter, _ *http.Request, q request) error {
	s, err := user(ctx, q)
	if err != nil {
		return err
	}
	o := newObject()
	if reason := Refusal(s); reason != "" {
		o.boolean("exceeded", true)
		o.text("reason", reason)
		o.answer(w)
		return nil
	}
	now := a.now().UTC()
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	counters, rebuilding, err := q.from.counters(ctx, q.id, today)
	limit := s.Limits.DailyAPICalls
	if err != nil && limit != tier.Unlimited {
		return err
	}
	if limit == tier.Unlimited {
		// Whatever the counters are, nothing is exceeded: the answer does not depend on the store.
		o.boolean("exceeded", false)
		o.text("usage", tier.Unlimited.String())
	} else {
		o.boolean("exceeded", counters.APICalls >= int64(limit))
	}
	if err == nil {
		o.integer("current_usage", counters.APICalls)
		o.integer("data_points", counters.DataPoints)
	}
	if limit != tier.Unlimited {
		o.integer("daily_limit", int64(limit))
		o.hundredths("usage_percentage", hundredthsOfPercent(counters.APICalls, int64(limit)))
	}
	if points := s.Limits.DataPoints(); points != tier.Unlimited {
		o.limit("daily_data_points", points)
	}
	o.text("user_id", s.UserID)
	o.text("company_id", s.CompanyID)
	o.text("tier", s.Tier)
	o.text("date", today.Format(time.DateOnly))
	o.time("reset_time", today.AddDate(0, 0, 1))
	if rebuilding {
		o.boolean("rebuilding", true)
	}
	o.answer(w)
	return nil
}

// hundredthsOfPercent is used/limit in hundredths of a percent, cut off and not rounded: 100 % stands only where the
// limit is reached. Of a limit of 0 everything is 100 %.
func hundredthsOfPercent(used, limit int64) uint64 {
	if limit <= 0 {
		return 100_00
	}
	if used <= 0 {
		return 0
	}
	u, l := uint64(used), uint64(limit)
	whole, rest := u/l, u%l
	high, low := bits.Mul64(rest, 100_00)
	part, _ := bits.Div64(high, low, l) // rest < l, so the quotient is below 10000 and fits
	if whole > (math.MaxUint64-part)/100_00 {
		return math.MaxUint64
	}
	return whole*100_00 + part
}

// PercentText writes a percentage as the quota answer does: used/limit cut off after two decimals, like "79.90".
func PercentText(used, limit int64) string {
	return string(appendHundredths(nil, hundredthsOfPercent(used, limit)))
}

func appendHundredths(b []byte, n uint64) []byte {
	b = strconv.AppendUint(b, n/100, 10)
	b = append(b, '.')
	if n%100 < 10 {
		b = append(b, '0')
	}
	return strconv.AppendUint(b, n%100, 10)
}
