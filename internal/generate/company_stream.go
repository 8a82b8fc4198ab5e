package generate

import (
	"fmt"
	"maps"
	"time"

	"tenantflow/events"
)

// Books keep what has become of the companies: what the stream does next depends on it.
type Books interface {
	// Apply does what an event does, and returns the code with which it is refused; empty: it is not.
	Apply(e *TenantEvent) (code string)
	// Settle does what is due to all companies at a time, the company ids in order. phase is that of its effects.
	Settle(at time.Time, phase int)
	// Tenant is a company as it is now; nil: it is not registered.
	Tenant(company string) *Tenant
	// Payment is what is known of a payment of any company.
	Payment(id string) (Payment, bool)
}

// A Tenant is a company and its subscription.
type Tenant struct {
	Open     bool     // it is not closed
	Users    []string // in the order in which they came
	MaxUsers int      // that its limits allow; 0: any number

	Tier      string
	Rank      int // of the tier in the order of upgrades, from 0
	Paid      bool
	Status    string
	Period           // the present one
	Pending   string // the tier for the end of the last period; empty: it stays
	PendingAt time.Time
	Ahead     bool    // a further period is recorded
	Ended     *Period // by an expiry; nil: none was
}

// A Period is held from its start to its end. Day is the day of the month on which such periods begin.
type Period struct {
	Start, End time.Time
	Day        int
}

// A Payment is what is known of one.
type Payment struct {
	CompanyID     string
	Status        string // pending, received or failed
	TransactionID string // that it pays for; empty: none
	Belongs       bool   // to a period
}

const (
	active   = "active"
	pastDue  = "past_due"
	received = "received"
	grace    = 7 * 24 * time.Hour
	patience = 3 * 24 * time.Hour
	currency = "USD"
)

// A CompanyStream makes company and subscription events, in order. It is not safe for use by several goroutines.
//
// # What makes the end the same in every order
//
// The two topics are read by different consumers, so the events of one company interleave in any way; only within a topic
// they keep their order. The events of a phase are made so that this does not matter:
//
//   - A company is quiet or moving in a phase. While it is quiet no event changes its tier, and users come and go. While it is
//     moving its tier changes, and its users stay (but for one who takes the place of the only one).
//   - The time of an effect is never before the last one of the same topic, and only subscription.events move a subscription in time. So
//     what is priced by time is not touched by the other topic.
//   - User ids rise in the order in which users come. So "the first by created_at and user_id" are the same users, whatever moment
//     two of them were moved to.
//   - Limits of a company's own end after Companies.Now or never, and max_users is among them only while the company is quiet.
//   - A company closes in a phase in which nothing comes for it from subscription.events.
//   - What belongs to another company (a user, a payment) is named only in a later phase.
//   - Subscription events may be produced before the registration of their company; in the order of times they come after it, or the
//     company has no other company events in that phase.
//
// Between phases the caller waits, so everything may depend on what an earlier phase has left. With one phase there is no wait.
//
// # What falls due
//
// Periods and grace periods end after Companies.Now, so that nothing is due by the clock. Lapsed companies (Companies.Lapsed) are the
// exception. Some subscribed forty days before, and their period has ended: whether an event of the schedule finds that or the next event
// does, the effect has the same identity. Publish all events of a phase before the schedule can put its own between them. Of the others
// (Companies.Soon) something falls due soon after Now, and the caller waits until then.
//
// Not generated: an email that two users of a company share, a user who comes back.
type CompanyStream struct {
	config    Companies
	random    dice
	books     Books
	stream    []emission
	next      int
	conflicts int

	// What was there before the phase that is being made: only that is named by other companies.
	earlierPayments []string
	newPayments     []string
	codes           map[string]int // how often each code was expected
}

// An emission is one message of the stream.
type emission struct {
	event      *TenantEvent
	structured bool
}

// span is how long all phases take together, by the times of the events.
const span = 6 * time.Hour

// NewCompanies checks the config, fills in its defaults and makes the stream; books are empty, and are afterwards what they must be when all
// of it has been handled. The error names everything that is wrong with the config.
func NewCompanies(config Companies, books Books) (*CompanyStream, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &CompanyStream{config: config, random: dice{random{state: config.Seed}}, books: books, codes: map[string]int{}}
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
		g.books.Settle(due, phase)
		g.earlierPayments = append(g.earlierPayments, g.newPayments...)
		g.newPayments = nil
	}
	return g, nil
}

// Len is the number of messages of the whole stream.
func (g *CompanyStream) Len() int { return len(g.stream) }

// Next returns the next message, or false when there is none left.
func (g *CompanyStream) Next() (Message, bool) {
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
func (g *CompanyStream) AppendLine(b []byte, topic string) ([]byte, bool) {
	for g.next < len(g.stream) {
		e := g.stream[g.next].event
		g.next++
		if topic != "" && e.Topic != topic {
			continue
		}
		envelope, err := e.Envelope()
		if err != nil {
			panic(err) // as in Next
		}
		line, err := envelope.ToStructured([]byte(e.Company))
		if err != nil {
			panic(err)
		}
		return append(b, line...), true
	}
	return b, false
}

// Events are those of the whole stream, in order: the same pointer again is the same event again.
func (g *CompanyStream) Events() []*TenantEvent {
	all := make([]*TenantEvent, len(g.stream))
	for i, e := range g.stream {
		all[i] = e.event
	}
	return all
}

// Conflicts is how many events repeat an identity with other data.
func (g *CompanyStream) Conflicts() int { return g.conflicts }

// Codes says how many events are refused with which code.
func (g *CompanyStream) Codes() map[string]int { return maps.Clone(g.codes) }

// budget spreads the events over phases and companies. Registrations are beside it.
func (g *CompanyStream) budget() [][]int {
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
func (g *CompanyStream) interleave(queues [][]emission) {
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
func (g *CompanyStream) unknown(i int) [][]emission {
	company := fmt.Sprintf("%sx%05d", g.config.Prefix, i)
	at := g.config.Now.Add(-span)
	var queues [][]emission
	for _, e := range []*TenantEvent{
		{Topic: events.TopicSubscription, Type: events.TypeUpgradeRequested, Data: map[string]any{"new_tier": "pro"}},
		{Topic: events.TopicCompany, Type: events.TypeUserAdded, Data: map[string]any{"user_id": company + "-u", "email": "u@" + company}},
	} {
		e.Company, e.Source, e.ID, e.Time = company, sourceOf(e.Topic), company+"-1", at
		e.Data["company_id"] = company
		g.codes[g.books.Apply(e)]++
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
