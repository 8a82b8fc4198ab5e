package tenantmodel

import "tenantflow/internal/generate"

// An Event is one record of a log as a [Judge] sees it.
type Event = generate.TenantEvent

// A Judge predicts the effect of events that are handled one after the other, whatever they are. An event for a company that is not
// registered is refused at once: hold it back until it is.
type Judge struct{ judge *judge }

// NewJudge returns a judge of an empty world.
func NewJudge() *Judge {
	j := newJudge()
	j.logged = true
	return &Judge{j}
}

// Apply does what an event must do. An identity comes once, but for events of the schedule.
func (j *Judge) Apply(e Event) { j.judge.Apply(&e) }

// World is what must be now.
func (j *Judge) World() *World {
	j.judge.finish()
	return j.judge.world
}
