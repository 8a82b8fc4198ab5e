package verify

import (
	"fmt"
	"slices"

	"tenantflow/sinks/dragonfly"
)

// An Action is one way in which a repair changes a store or a topic.
type Action string

// The actions of a repair, in their order.
const (
	RemoveRows     Action = "remove_rows"     // later copies of events; the totals that they are part of are corrected as well
	WriteLetters   Action = "write_letters"   // the conflict letters of those of them with other data than the first
	CorrectTotals  Action = "correct_totals"  // by their difference
	PublishConfigs Action = "publish_configs" // configurations, and marks that there is none any more
	PublishResults Action = "publish_results" // under the ids that they had
	CorrectSums    Action = "correct_sums"    // of users' counters, to what their partitions have counted
	Recount        Action = "recount"         // the running service counts again, from a day on
)

// A Step is one action of a repair on a number of things.
type Step struct {
	Action  Action   `json:"action"`
	Count   int64    `json:"count"`
	Samples []string `json:"samples"` // some of the things, at most 10
}

// A Plan says what a repair of everything that was found would do, as far as one round of it goes: there may be more of the same.
type Plan []Step

// maxPlanned is how many things a step names.
const maxPlanned = 10

// plan says what a repair would do about what was found.
func (t *todo) plan() Plan {
	plan := Plan{}
	add := func(action Action, count int, name func(i int) string) {
		if count == 0 {
			return
		}
		s := Step{Action: action, Count: int64(count)}
		for i := range min(count, maxPlanned) {
			s.Samples = append(s.Samples, name(i))
		}
		plan = append(plan, s)
	}
	place := func(c *twin) string { return where(c.topic, c.partition, c.offset) }
	var others []string
	for i := range t.doubles {
		if d := &t.doubles[i]; !d.sameContent() {
			others = append(others, place(&d.later))
		}
	}
	add(RemoveRows, len(t.doubles), func(i int) string { return place(&t.doubles[i].later) })
	add(WriteLetters, len(others), func(i int) string { return others[i] })
	add(CorrectTotals, len(t.totals), func(i int) string {
		return fmt.Sprintf("%s %s: %s", t.totals[i].View(), t.totals[i].Name(), t.totals[i].String())
	})
	add(PublishConfigs, len(t.configs), func(i int) string { return t.configs[i] })
	add(PublishResults, len(t.results), func(i int) string { return t.results[i].Topic + " " + t.results[i].Event.ID })
	if w := t.counters; w != nil {
		add(CorrectSums, len(w.sums), func(i int) string { return dragonfly.QuotaKey(w.sums[i].User, w.sums[i].Day) })
		if !w.first.IsZero() {
			add(Recount, 1, func(int) string { return "from " + w.first.Format("2006-01-02") + " on" })
		}
	}
	return plan
}

// adds reports whether a plan has an action that others do not have.
func (p Plan) adds(approved []Action) bool {
	return slices.ContainsFunc(p, func(s Step) bool { return !slices.Contains(approved, s.Action) })
}

func (p Plan) actions() []Action {
	actions := make([]Action, len(p))
	for i, s := range p {
		actions[i] = s.Action
	}
	return actions
}
