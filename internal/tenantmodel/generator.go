package tenantmodel

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"tenantflow/events"
)

// A Generator makes the messages of one stream, in order. It is not safe for use by several goroutines.
type Generator struct {
	config Config
	random random
	judge  *judge
	stream []emission
	next   int

	// What was there before the phase that is being made: only that is named by other companies.
	earlierPayments []string
	newPayments     []string
	codes           map[string]int // how often each code was expected
}

// An emission is one message of the stream.
type emission struct {
	event      *event
	structured bool
}

// span is how long all phases take together, by the times of the events.
const span = 6 * time.Hour

// New checks the config, fills in its defaults and makes the stream. The error names everything that is wrong with the config.
func New(config Config) (*Generator, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Generator{config: config, random: random{state: config.Seed}, judge: newJudge(), codes: map[string]int{}}
	scripts := make([]*script, config.Companies)
	for i := range scripts {
		scripts[i] = g.newScript(i)
	}
	budget := g.budget()
	for phase := range config.Phases {
		var queues [][]emission
		for i, s := range scripts {
			company, subscription := s.play(phase, budget[phase][i])
			queues = append(queues, company, subscription)
		}
		if phase == 0 {
			for i := range config.Unknown {
				queues = append(queues, g.unknown(i)...)
			}
		}
		g.interleave(queues)
		due := config.Now
		if phase == config.Phases-1 {
			due = due.Add(config.Soon)
		}
		for _, id := range slices.Sorted(maps.Keys(g.judge.companies)) {
			g.judge.settle(g.judge.companies[id], due, &event{phase: phase})
		}
		g.earlierPayments = append(g.earlierPayments, g.newPayments...)
		g.newPayments = nil
	}
	g.judge.finish()
	return g, nil
}

// Config returns the config with its defaults filled in.
func (g *Generator) Config() Config { return g.config }

// Len is the number of messages of the whole stream.
func (g *Generator) Len() int { return len(g.stream) }

// Next returns the next message, or false when there is none left.
func (g *Generator) Next() (Message, bool) {
	if g.next >= len(g.stream) {
		return Message{}, false
	}
	e := g.stream[g.next]
	g.next++
	m, err := e.event.message(e.structured)
	if err != nil { // can't be: the data are JSON values and the attributes are printable
		panic(err)
	}
	return m, true
}

// AppendLine appends the next message for a topic (without prefix; empty: both) as a line of JSON without the line's end: the event in
// structured mode with its key as the extension partitionkey. It is false when there is none left.
func (g *Generator) AppendLine(b []byte, topic string) ([]byte, bool) {
	for g.next < len(g.stream) {
		e := g.stream[g.next].event
		g.next++
		if topic != "" && e.topic != topic {
			continue
		}
		envelope, err := e.envelope()
		if err != nil {
			panic(err) // as in Next
		}
		line, err := envelope.ToStructured([]byte(e.company))
		if err != nil {
			panic(err)
		}
		return append(b, line...), true
	}
	return b, false
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

// Codes says how many events are refused with which code.
func (g *Generator) Codes() map[string]int { return maps.Clone(g.codes) }

// budget spreads the events over phases and companies. Registrations are beside it.
func (g *Generator) budget() [][]int {
	n := make([][]int, g.config.Phases)
	for i := range n {
		n[i] = make([]int, g.config.Companies)
	}
	for range g.config.Events - g.config.Companies {
		n[g.random.below(g.config.Phases)][g.random.below(g.config.Companies)]++
	}
	return n
}

// interleave appends the queues to the stream in a random order that keeps theirs.
func (g *Generator) interleave(queues [][]emission) {
	var turns []int
	for i, q := range queues {
		for range q {
			turns = append(turns, i)
		}
	}
	for i := len(turns) - 1; i > 0; i-- {
		k := g.random.below(i + 1)
		turns[i], turns[k] = turns[k], turns[i]
	}
	for _, i := range turns {
		g.stream = append(g.stream, queues[i][0])
		queues[i] = queues[i][1:]
	}
}

// unknown makes the events of a company that never registers.
func (g *Generator) unknown(i int) [][]emission {
	company := fmt.Sprintf("%sx%05d", g.config.Prefix, i)
	at := g.config.Now.Add(-span)
	var queues [][]emission
	for _, e := range []*event{
		{topic: events.TopicSubscription, kind: events.TypeUpgradeRequested, data: map[string]any{"new_tier": "pro"}},
		{topic: events.TopicCompany, kind: events.TypeUserAdded, data: map[string]any{"user_id": company + "-u", "email": "u@" + company}},
	} {
		e.company, e.source, e.id, e.at = company, sourceOf(e.topic), company+"-1", at
		e.data["company_id"] = company
		g.codes[g.judge.apply(e)]++
		queues = append(queues, []emission{{e, g.random.chance(0.3)}})
	}
	return queues
}

// sourceOf is who produces events of a topic. The ids of different sources may be the same: only both together are an identity.
func sourceOf(topic string) string {
	if topic == events.TopicCompany {
		return "/registration/eu-1"
	}
	return "urn:billing:service"
}
