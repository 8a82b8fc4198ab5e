package tenant

import (
	"cmp"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tier"
)

// DueOverride is the kind of what is due when an override ends. It is due to the company and not to its subscription: its events are
// those of company.events, and only they end it.
const DueOverride = "override"

// An Override is a limit of a company that holds in place of its tier's, from the event that sets it until its end is applied.
type Override struct {
	Limit  string     `json:"limit_name"`
	Value  tier.Limit `json:"value"`
	Reason string     `json:"reason"` // an operator's words
	SetAt  time.Time  `json:"set_at"`
	// ExpiresAt is when it ends; nil: another event ends it.
	ExpiresAt *time.Time `json:"expires_at"`
}

// Overrides are those of a company, at most one for each limit. They survive every change of the subscription. Treat them as read-only.
type Overrides []Override

// Over returns the limits that hold where the subscription has the given ones. It is the one place in Go that says so; in Postgres it is
// the trigger that writes subscriptions.effective_limits.
func (o Overrides) Over(limits tier.Limits) tier.Limits {
	for i := range o {
		limits.Set(o[i].Limit, o[i].Value)
	}
	return limits
}

// After leaves out those that end at a time or before: for what is said about times to come. What is decided looks at all of them, until
// the end of one is applied.
func (o Overrides) After(at time.Time) Overrides {
	return slices.DeleteFunc(slices.Clone(o), func(one Override) bool { return one.ExpiresAt != nil && !one.ExpiresAt.After(at) })
}

// without leaves out the one of a limit.
func (o Overrides) without(limit string) Overrides {
	return slices.DeleteFunc(slices.Clone(o), func(one Override) bool { return one.Limit == limit })
}

// limits are the limits that hold for the company with a subscription.
func (s *State) limits(sub *Subscription) tier.Limits { return s.Overrides.Over(sub.Limits) }

// overridesDue lists the ends of the overrides, in the order in which they happen: by time, and then by the name of the limit. None is for a
// company that is closed: it keeps its limits as they were.
func (s *State) overridesDue() []Due {
	if s.Company == nil || s.Company.Status != Active {
		return nil
	}
	var all []Due
	for i := range s.Overrides {
		if one := &s.Overrides[i]; one.ExpiresAt != nil {
			all = append(all, Due{Kind: DueOverride, Name: one.Limit, At: one.ExpiresAt.UTC()})
		}
	}
	slices.SortFunc(all, func(a, b Due) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Name, b.Name)) })
	return all
}

// DueBefore lists what may have to happen before an event with a payload: what its own topic moves. Events of subscription.events move the
// subscription, and those of company.events the overrides, which so are a function of that topic alone.
func (s *State) DueBefore(payload any) []Due {
	if _, registers := payload.(*events.CompanyRegistered); registers {
		return nil
	}
	if moves(payload) {
		return s.Due()
	}
	return s.overridesDue()
}

// NamedDue returns what an event says is due; false: it is another event.
func NamedDue(payload any) (Due, bool) {
	switch p := payload.(type) {
	case *events.SubscriptionDue:
		return Due{Kind: p.Kind, At: p.DueAt}, true
	case *events.CompanyDue:
		return Due{Kind: p.Kind, Name: p.Name, At: p.DueAt}, true
	}
	return Due{}, false
}

// override sets limits of a company in place of its tier's, and takes others back.
func (r *Rules) override(d *Decision, s *State, p *events.LimitsOverridden) (*Decision, error) {
	audited := map[string]any{}
	var end *time.Time
	if p.ExpiresAt != nil {
		at := p.ExpiresAt.UTC().Truncate(time.Microsecond)
		if !at.After(d.At) {
			return d.refuse(InvalidPeriod, "the override would end at %s, and it begins at %s", stamp(at), stamp(d.At)), nil
		}
		end = &at
	}
	next := s.Overrides
	for _, l := range p.Limits {
		next = next.without(l.Name)
		if l.Reset {
			audited[l.Name] = nil
			continue
		}
		value := tier.Limit(l.Value)
		if l.Unlimited {
			value = tier.Unlimited
		}
		audited[l.Name] = value
		next = append(next, Override{Limit: l.Name, Value: value, Reason: p.Reason, SetAt: d.At, ExpiresAt: end})
	}
	details := map[string]any{"limits": audited, "reason": p.Reason}
	if end != nil {
		details["expires_at"] = stamp(*end)
	}
	d.note("company.limits_overridden", details)
	return r.relimit(d, s, next, map[string]any{"change": "overridden"})
}

// endOverride takes the company back to its tier's limit, where an override has ended.
func (r *Rules) endOverride(d *Decision, s *State, c *Cause, p *events.CompanyDue) (*Decision, error) {
	handled := c.Appended
	if handled.Before(d.At) {
		handled = d.At
	}
	d.note("company.override_ended", map[string]any{"limit": p.Name, "expires_at": stamp(p.DueAt)})
	return r.relimit(d, s, s.Overrides.without(p.Name), map[string]any{"change": "ended", "handled_at": stamp(handled)})
}

// maxNamed bounds how many users a result names: a message of more than 1 MiB could never be published.
const maxNamed = 10_000

// relimit gives a company other overrides, with all that follows from its limits. data is what its result says beside them.
func (r *Rules) relimit(d *Decision, s *State, next Overrides, data map[string]any) (*Decision, error) {
	slices.SortFunc(next, func(a, b Override) int { return cmp.Compare(a.Limit, b.Limit) })
	d.Overrides = &next
	changes := map[string]tier.Restriction{}
	var after tier.Limits
	if sub := s.Subscription; sub != nil { // else there is no limit that could be another one
		before := s.limits(sub)
		after = next.Over(sub.Limits)
		for _, name := range tier.LimitNames() {
			old, _ := before.Named(name)
			if now, _ := after.Named(name); old != now {
				changes[name] = tier.Restriction{Old: old, New: now}
			}
		}
		// "unlimited" and nothing said are one limit, and two texts: the users' copies are to have the subscription's.
		d.Seat = len(changes) > 0 || (before.DailyDataPoints == nil) != (after.DailyDataPoints == nil)
		if err := r.configure(d, s, sub, after); err != nil {
			return nil, err
		}
	}
	d.Outputs = func(w Written) []Output {
		data["company_id"], data["limits"], data["changes"], data["overrides"] = s.CompanyID, after, changes, next.public()
		data["users_suspended"], data["users_reactivated"] = w.seated(StatusSuspended), w.seated(Active)
		data["effective_date"] = stamp(d.At)
		return append([]Output{{Topic: events.TopicCompanyResults, Type: events.TypeLimitsChanged, Data: data}}, s.configChanged(w)...)
	}
	return d, nil
}

// public is what others are told of the overrides: not the reason, which is the operators' own.
func (o Overrides) public() []map[string]any {
	all := make([]map[string]any, len(o))
	for i := range o {
		all[i] = map[string]any{"limit_name": o[i].Limit, "value": o[i].Value, "set_at": stamp(o[i].SetAt)}
		if end := o[i].ExpiresAt; end != nil {
			all[i]["expires_at"] = stamp(*end)
		}
	}
	return all
}

// StatusSuspended is that of a user for whom there is no place.
const StatusSuspended = "suspended"

// seated lists users who have a status now, and had another one before: the first maxNamed.
func (w *Written) seated(status string) []string {
	users := []string{}
	for _, seat := range w.Seats {
		if seat.Status == status && len(users) < maxNamed {
			users = append(users, seat.UserID)
		}
	}
	return users
}
