package tenantmodel

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"tenantflow/events"
)

// An override is a limit that an operator has set.
type override struct {
	value  any // a whole number, or "unlimited"
	reason string
	set    time.Time
	ends   time.Time // zero: another event ends it
}

// room is how many users have a place; -1: all.
func (c *company) room() int {
	o, there := c.overrides["max_users"]
	switch {
	case !there && c.sub.plan.maxUsers == 0, there && o.value == "unlimited":
		return -1
	case !there:
		return c.sub.plan.maxUsers
	}
	n, _ := whole(o.value)
	return n
}

// roomJSON is the same as configurations say it.
func (c *company) roomJSON() any {
	if c.room() < 0 {
		return "unlimited"
	}
	return c.room()
}

// whole reads a number of any kind that events are made with.
func whole(value any) (int, bool) {
	switch n := value.(type) {
	case int:
		return n, true
	case int64:
		return int(n), true
	case float64:
		return int(n), true
	}
	return 0, false
}

// ends are the limits whose overrides end by themselves, the first first.
func (c *company) ends() []string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(c.overrides)), func(name string) bool { return c.overrides[name].ends.IsZero() })
	slices.SortStableFunc(names, func(a, b string) int { return c.overrides[a].ends.Compare(c.overrides[b].ends) })
	return names
}

// pass does what the clock says is due at a time, to the subscription and to the overrides.
func (j *judge) pass(c *company, at time.Time, before *Event) {
	j.settle(c, at, before)
	j.lapse(c, at, before)
}

// lapse ends the overrides that have ended at a time. before is the event that has to wait for it.
func (j *judge) lapse(c *company, at time.Time, before *Event) {
	for c.status == active {
		names := c.ends()
		if len(names) == 0 || c.overrides[names[0]].ends.After(at) {
			return
		}
		j.lift(c, names[0], before)
	}
}

// overrideDue does what an event of the schedule names, and what comes before that, if it still is due.
func (j *judge) overrideDue(c *company, e *Event) {
	name, at := text(e, "name"), moment(e, "due_at")
	if e.Appended.Before(at) {
		return
	}
	for o := c.overrides[name]; !o.ends.IsZero() && o.ends.Equal(at); o = c.overrides[name] {
		j.lift(c, c.ends()[0], e)
	}
}

// lift ends one override.
func (j *judge) lift(c *company, name string, before *Event) {
	at := c.overrides[name].ends
	e := &Event{Topic: events.TopicCompany, Company: c.id, Source: "/tenantflow/schedule", ID: fmt.Sprintf("due:%s:override:%s:%s", c.id, name, stamp(at)), Time: at}
	if before != nil {
		e.Phase = before.Phase
	}
	j.world.Inbox[identity(e)] = "done"
	delete(c.overrides, name)
	c.own = later(at, c.own)
	j.relimited(e, c, "ended", name == "max_users")
}

// overridden judges what an operator sets.
func (j *judge) overridden(e *Event, c *company) string {
	at := later(e.Time, c.own)
	var ends time.Time
	if e.Data["expires_at"] != nil {
		if ends = moment(e, "expires_at"); !ends.After(at) {
			return "invalid_period"
		}
	}
	before, was := c.overrides["max_users"]
	limits, _ := e.Data["limits"].(map[string]any)
	for name, value := range limits {
		if value == nil {
			delete(c.overrides, name)
			continue
		}
		if n, ok := whole(value); ok {
			value = n
		}
		c.overrides[name] = override{value, text(e, "reason"), at, ends}
	}
	after, is := c.overrides["max_users"]
	j.relimited(e, c, "overridden", was != is || before.value != after.value)
	return ""
}

// relimited reports other overrides. The configuration is another one if another number of users has a place, which no tier gives: see the
// rules of the package.
func (j *judge) relimited(e *Event, c *company, change string, users bool) {
	all := []any{}
	for _, name := range slices.Sorted(maps.Keys(c.overrides)) {
		o := c.overrides[name]
		one := map[string]any{"limit_name": name, "value": o.value, "set_at": stamp(o.set)}
		if !o.ends.IsZero() {
			one["expires_at"] = stamp(o.ends)
		}
		all = append(all, one)
	}
	j.result(e, events.TopicCompanyResults, events.TypeLimitsChanged, 0, map[string]any{"change": change, "overrides": all,
		"effective_date": stamp(later(e.Time, c.own))})
	if users {
		j.configured(e)
	}
}
