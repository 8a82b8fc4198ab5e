package tenant

import (
	"time"

	"tenantflow/events"
)

// DefaultVoidWindow is how old usage may be at most when a request takes it back.
const DefaultVoidWindow = 35 * 24 * time.Hour

// Codes of a request to take usage back that is refused.
const (
	UnknownUsage  = "unknown_usage"
	AlreadyVoided = "already_voided"
	VoidTooLate   = "void_too_late"
)

// A UsageLookup is what was found of the usage that a request takes back.
type UsageLookup struct {
	// At is when the request's effect happens, as it was decided when the request was taken. So it does not depend on how long the
	// look-up took and what has happened to the company meanwhile.
	At time.Time
	// Usage is the stored usage; nil: there is none, and all usage that came before the request is stored.
	Usage *StoredUsage
}

// A StoredUsage is usage that a request may take back.
type StoredUsage struct {
	// Void is the data of the event that takes it back, but for the reason.
	Void events.UsageVoided
	// Key is that of the usage's record; empty: it is not known.
	Key string
	// Partition is the one of the usage topic that the usage came from; nil: that topic has no such partition any more.
	Partition *int
}

// A Void takes usage back.
type Void struct {
	ID        string // of its event
	Source    string // with UsageID the identity of the usage
	UsageID   string
	Timestamp time.Time // of the usage
}

// requestVoid judges a request to take usage back by the times it names and by the voids that are recorded. If neither refuses it, it is held
// until its usage is looked up.
func (r *Rules) requestVoid(d *Decision, s *State, c *Cause, p *events.UsageVoidRequested) *Decision {
	switch {
	case p.Timestamp.Before(c.Event.Time.Add(-r.voidWindow)):
		return d.refuse(VoidTooLate, "the usage was more than %s before the request", r.voidWindow)
	case s.Voided:
		return d.refuse(AlreadyVoided, "the usage is taken back already")
	}
	d.Held = true
	return d
}

// void decides a request whose usage was looked up. A company that was closed meanwhile has its bill corrected all the same: the request
// stands in front of the closing in the log.
func (r *Rules) void(s *State, c *Cause, p *events.UsageVoidRequested) *Decision {
	d := &Decision{At: c.Looked.At, Undated: true} // it is decided later than events behind it
	found := c.Looked.Usage
	switch {
	case s.Company.Status == Purged:
		return d.refuse(CompanyClosed, "the company is purged")
	case s.Voided:
		return d.refuse(AlreadyVoided, "the usage is taken back already")
	case found == nil:
		return d.refuse(UnknownUsage, "no such usage of this company and user was stored up to the request")
	}
	void, key := found.Void, found.Key
	if void.Reason = p.Reason; key == "" {
		key = p.CompanyID
	}
	d.Void = &Void{ID: p.VoidID(), Source: p.UsageSource, UsageID: p.UsageID, Timestamp: p.Timestamp}
	// The same facts for the audit and for the result; only the user is another.
	facts := func(name, user string) map[string]any {
		return map[string]any{
			name: user, "usage_source": p.UsageSource, "usage_id": p.UsageID, "timestamp": stamp(p.Timestamp), "void_id": d.Void.ID,
			"data_points_consumed": void.DataPoints, "revenue_attributed": void.RevenueText(), "billing_period": void.BillingPeriod, "reason": p.Reason,
		}
	}
	d.note("usage.voided", facts("user", Pseudonym(s.CompanyID, p.UserID)))
	d.Outputs = func(Written) []Output {
		result := facts("user_id", p.UserID)
		result["company_id"], result["voided_at"] = s.CompanyID, stamp(d.At)
		return []Output{
			{Topic: events.TopicUsage, Type: events.TypeUsageVoided, Void: &void, Key: key, Partition: found.Partition},
			{Topic: events.TopicCompanyResults, Type: events.TypeCompanyUsageVoided, Data: result},
		}
	}
	return d
}
