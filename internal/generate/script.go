package generate

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"tenantflow/events"
)

// A script makes the events of one company, phase by phase.
type script struct {
	g      *CompanyStream
	index  int
	id     string
	begins int  // the phase in which the company registers
	lapsed bool // its period ends before the stream does, or soon after
	soon   bool // soon after
	number int  // of its events; ids are made of it
	users  int  // so far; ids are made of it
	// payments are those of the company, in the order in which they were first named.
	payments []string
	sent     map[string][]*TenantEvent // by topic, for resends
}

func (g *CompanyStream) newScript(index int) *script {
	s := &script{g: g, index: index, id: fmt.Sprintf("%sc%05d", g.config.Prefix, index), sent: map[string][]*TenantEvent{}}
	s.lapsed = g.random.chance(g.config.Lapsed)
	s.soon = s.lapsed && index > 0 && g.config.Soon > 0 && g.random.chance(0.7)
	// The first company is there from the start, and its first user stays: others may name this user.
	if index > 0 && !s.lapsed && g.config.Phases > 1 && g.random.chance(0.1) {
		s.begins = 1
	}
	return s
}

func (s *script) state() *Tenant { return s.g.books.Tenant(s.id) }

// A scene is the events of one company in one phase.
type scene struct {
	*script
	phase int
	quiet bool // no event changes the tier; else none changes the users, but for one who takes another's place
	ends  bool // the company closes
	// swapped: a user takes another's place, so nothing may list the users meanwhile.
	swapped       bool
	company, subs []*TenantEvent
	start         time.Time // of the company's events, and half of the phase later of the subscription's
	half, step    time.Duration
}

// play makes about n events for each topic together, and what is sent of them.
func (s *script) play(phase, n int) (company, subscription []emission) {
	if phase < s.begins || s.soon && phase > 0 {
		return nil, nil
	}
	half := (span / time.Duration(s.g.config.Phases) / 2).Truncate(time.Millisecond)
	sc := &scene{script: s, phase: phase, half: half, step: half / time.Duration(n+6), start: s.g.config.Now.Add(-span + time.Duration(phase)*2*half)}
	r := &s.g.random
	sc.quiet = phase%2 == 1 || r.chance(0.3)
	if phase == s.begins {
		sc.register()
		switch {
		case s.soon:
			sc.runOut()
			return sc.send()
		case s.lapsed:
			sc.lapse(n)
			return sc.send()
		}
	}
	closed := !s.state().Open
	sc.ends = !closed && sc.quiet && n > 0 && s.index > 0 && r.chance(0.06)
	ofCompany := 0
	for range n {
		if sc.ends || r.chance(0.4) {
			ofCompany++
		}
	}
	for i := range ofCompany {
		switch {
		case sc.ends && i == ofCompany-1:
			sc.add(events.TopicCompany, events.TypeCompanyClosed, sc.closing())
		case closed:
			sc.add(events.TopicCompany, pick(r, events.TypeConfigUpdated, events.TypeCompanyClosed), map[string]any{"config": map[string]any{"late": true}})
		default:
			sc.companyEvent()
		}
	}
	for range n - ofCompany {
		sc.subscriptionEvent()
	}
	return sc.send()
}

// add has an event judged and keeps it. It says whether it is refused.
func (sc *scene) add(topic, kind string, data map[string]any) bool {
	list, at := &sc.company, sc.start
	if topic == events.TopicSubscription {
		list, at = &sc.subs, sc.start.Add(sc.half)
	}
	at = at.Add(time.Duration(len(*list)+1) * sc.step).Truncate(time.Millisecond)
	return sc.addAt(topic, kind, data, at)
}

func (sc *scene) addAt(topic, kind string, data map[string]any, at time.Time) bool {
	list := &sc.company
	if topic == events.TopicSubscription {
		list = &sc.subs
	}
	sc.number++
	data["company_id"] = sc.id
	e := &TenantEvent{Topic: topic, Company: sc.id, Source: sourceOf(topic), ID: fmt.Sprintf("%s-%d", sc.id, sc.number/2), Type: kind, Time: at, Data: data, Phase: sc.phase}
	if clash := slices.ContainsFunc(sc.sent[topic], func(o *TenantEvent) bool { return o.ID == e.ID }); clash || slices.ContainsFunc(*list, func(o *TenantEvent) bool { return o.ID == e.ID }) {
		e.ID += "b" // two events share a number; those of different topics may share an id
	}
	*list = append(*list, e)
	code := sc.g.books.Apply(e)
	if code != "" {
		sc.g.codes[code]++
	}
	e.refused = code != ""
	return e.refused
}

// send is what is published of the scene: its events, some of them again, in the order in which they are.
func (sc *scene) send() (company, subscription []emission) {
	r := &sc.g.random
	// What was sent before the registration waits for it.
	if len(sc.company) > 1 && sc.company[0].Type == events.TypeCompanyRegistered && sc.company[1].Type == events.TypeConfigUpdated && r.chance(0.3) {
		sc.company[0], sc.company[1] = sc.company[1], sc.company[0]
	}
	return sc.repeat(events.TopicCompany, sc.company), sc.repeat(events.TopicSubscription, sc.subs)
}

// repeat adds resends and conflicts to the events of a topic, each behind its original.
func (sc *scene) repeat(topic string, list []*TenantEvent) []emission {
	r, config := &sc.g.random, &sc.g.config
	var out []emission
	for _, e := range list {
		out = append(out, emission{e, r.chance(0.3)})
		sc.sent[topic] = append(sc.sent[topic], e)
		if r.chance(config.Resends) {
			out = append(out, emission{pick(r, sc.sent[topic]...), r.chance(0.3)})
		}
		if r.chance(config.Conflicts) {
			if other, ok := pick(r, sc.sent[topic]...).altered(); ok {
				out = append(out, emission{other, r.chance(0.3)})
				sc.g.conflicts++
			}
		}
	}
	return out
}

// altered is an event with the same identity and other data; false: there is nothing to alter.
func (e *TenantEvent) altered() (*TenantEvent, bool) {
	other := *e
	other.Data = maps.Clone(e.Data)
	switch e.Type {
	case events.TypeUserAdded:
		other.Data["email"] = "another-" + e.text("email")
	case events.TypeConfigUpdated:
		other.Data["config"] = map[string]any{"altered": true}
	case events.TypeUpgradeRequested, events.TypeDowngradeRequested:
		other.Data["new_tier"] = "altered"
	case events.TypePaymentReceived:
		other.Data["amount_minor"] = int64(987_654_321)
	case events.TypePaymentFailed, events.TypeLimitsOverridden:
		other.Data["reason"] = "altered"
	default:
		return nil, false
	}
	return &other, true
}
