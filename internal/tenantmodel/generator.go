package tenantmodel

import (
	"maps"
	"slices"
	"time"

	"tenantflow/internal/generate"
)

// A Config describes a stream of events.
type Config = generate.Companies

// A Message is one record to publish.
type Message = generate.Message

// A Generator makes the messages of one stream, in order, and knows what must come of them. It is not safe for use by several goroutines.
type Generator struct {
	*generate.CompanyStream
	judge *judge
}

// New checks the config, fills in its defaults and makes the stream. The error names everything that is wrong with the config.
func New(config Config) (*Generator, error) {
	j := newJudge()
	stream, err := generate.NewCompanies(config, j)
	if err != nil {
		return nil, err
	}
	if n := stream.Conflicts(); n > 0 {
		j.world.DeadLetters["conflict"] = n
	}
	j.finish()
	return &Generator{stream, j}, nil
}

// Expected returns what must be when all messages of the stream have been published and handled, and what was due by Config.Now (and
// Soon after) has been done. It is the generator's own: don't change it.
func (g *Generator) Expected() *World { return g.judge.world }

// ResultsThrough returns the results that must be published before the messages of the phase after the given one may be.
func (g *Generator) ResultsThrough(phase int) map[string]Result {
	found := map[string]Result{}
	for id, r := range g.judge.world.Results {
		if r.Phase <= phase {
			found[id] = r
		}
	}
	return found
}

// Apply implements [generate.Books].
func (j *judge) Apply(e *generate.TenantEvent) (code string) { return j.apply(e) }

// Settle implements [generate.Books].
func (j *judge) Settle(at time.Time, phase int) {
	for _, id := range slices.Sorted(maps.Keys(j.companies)) {
		j.pass(j.companies[id], at, &Event{Phase: phase})
	}
}

// Tenant implements [generate.Books].
func (j *judge) Tenant(id string) *generate.Tenant {
	c := j.companies[id]
	if c == nil {
		return nil
	}
	s := &c.sub
	t := &generate.Tenant{Open: c.status == active, MaxUsers: max(0, c.room()), Tier: s.plan.name, Rank: s.plan.rank, Paid: s.plan.price > 0, Status: s.status,
		Period: generate.Period{Start: s.start, End: s.end, Day: s.day}, Pending: s.pending, PendingAt: s.pendingAt, Ahead: s.ahead != nil}
	for _, m := range c.users {
		t.Users = append(t.Users, m.id)
	}
	if s.ended != nil {
		t.Ended = &generate.Period{Start: s.ended.start, End: s.ended.end, Day: s.ended.day}
	}
	return t
}

// Payment implements [generate.Books].
func (j *judge) Payment(id string) (generate.Payment, bool) {
	p, known := j.world.Payments[id]
	return generate.Payment{CompanyID: p.CompanyID, Status: p.Status, TransactionID: p.TransactionID, Belongs: !p.PeriodStart.IsZero()}, known
}
