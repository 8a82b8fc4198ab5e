package events

import (
	"maps"
	"slices"
	"time"
)

// LimitsOverridden is the data of company.limits_overridden.v1.
type LimitsOverridden struct {
	CompanyID string
	Limits    []NewLimit // at least one, in ascending order of their names, each once
	Reason    string
	ExpiresAt *time.Time // when the overrides end; nil: never by themselves
}

// A NewLimit is what an event says of one limit: a number, that there is none, or that it is the tier's again.
type NewLimit struct {
	Name      string
	Value     int64 // 0 or more
	Unlimited bool
	Reset     bool // back to the tier's
}

// CompanyDue is the data of company.due.v1.
type CompanyDue struct {
	CompanyID string
	Kind      string
	Name      string // of the limit whose override ends
	DueAt     time.Time
}

// IsDue reports whether events of a type are those by which this service puts into a log what is due.
func IsDue(eventType string) bool {
	return eventType == TypeSubscriptionDue || eventType == TypeCompanyDue
}

// limitNames are the limits that may be overridden: those whose values the schema of the event describes.
var limitNames = []string{"daily_api_calls", "daily_data_points", "max_users", "retention_days", "storage_mb"} //nolint:gochecknoglobals // a constant table

func (o object) limitsOverridden(company string, at time.Time) *LimitsOverridden {
	p := &LimitsOverridden{CompanyID: company, Reason: o.text("reason")}
	if _, there := o["expires_at"]; there {
		end := o.time("expires_at", at)
		p.ExpiresAt = &end
	}
	limits := o.object("limits")
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		if !slices.Contains(limitNames, name) {
			continue // like every member that the schema does not name
		}
		l := NewLimit{Name: name}
		switch value := limits[name]; {
		case value == nil:
			l.Reset = true
		case value == "unlimited":
			l.Unlimited = true
		default:
			l.Value = limits.integer(name)
		}
		p.Limits = append(p.Limits, l)
	}
	return p
}
