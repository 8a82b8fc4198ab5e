package tenantmodel

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
)

var end = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func everything(seed uint64, phases int) Config {
	return Config{Seed: seed, Companies: 12, Events: 12 * 12 * phases, Phases: phases, Prefix: "t-", Now: end,
		Rejected: 0.35, Resends: 0.1, Conflicts: 0.05, Lapsed: 0.25, Soon: time.Minute, Unknown: 2, Held: true}
}

func generator(t testing.TB, config Config) *Generator {
	t.Helper()
	g, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestEveryEventIsOneThatTheServiceUnderstands(t *testing.T) {
	t.Parallel()
	decoder, err := events.NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]int{}
	for seed := range uint64(5) {
		g := generator(t, everything(seed, 7))
		for m, ok := g.Next(); ok; m, ok = g.Next() {
			e, err := decoder.Decode(&events.Record{Topic: m.Topic, Key: m.Key, Value: m.Value, Headers: m.Headers})
			if err != nil {
				t.Fatalf("%s %s: %v", m.Key, m.Value, err)
			}
			if _, err := e.Payload(); err != nil {
				t.Fatalf("%s: %v", m.Value, err)
			}
			if e.Time.After(end) || !e.Time.Equal(e.Time.Truncate(time.Millisecond)) {
				t.Fatalf("an event of %s, after the end or finer than stores keep", e.Time)
			}
			types[e.Type]++
		}
	}
	if len(types) != 16 {
		t.Errorf("only these types come up: %v", types)
	}
}

func TestTheSameConfigGivesTheSameBytes(t *testing.T) {
	t.Parallel()
	read := func(seed uint64) (all []byte) {
		g := generator(t, everything(seed, 3))
		for m, ok := g.Next(); ok; m, ok = g.Next() {
			all = fmt.Appendf(all, "%s %s %s %v %d\n", m.Topic, m.Key, m.Value, m.Headers, m.Phase)
		}
		return all
	}
	first := read(1)
	if !bytes.Equal(first, read(1)) {
		t.Error("the same seed gives another stream")
	}
	if bytes.Equal(first, read(2)) {
		t.Error("another seed gives the same stream")
	}
}

func TestEveryCodeAndEveryResultComesUp(t *testing.T) {
	t.Parallel()
	codes, types := map[string]int{}, map[string]int{}
	for seed := range uint64(20) {
		g := generator(t, everything(seed, 5))
		for code, n := range g.Codes() {
			codes[code] += n
		}
		for _, r := range g.Expected().Results {
			types[r.Type]++
		}
	}
	for _, code := range strings.Fields(`invalid_upgrade_path invalid_downgrade_path unknown_tier tier_changed unknown_company company_exists company_closed user_exists user_limit_reached
		unknown_user invalid_config duplicate_payment invalid_amount unsupported_currency currency_mismatch invalid_period not_expired nothing_scheduled nothing_to_renew`) {
		if codes[code] < 5 {
			t.Errorf("%s: %d times", code, codes[code])
		}
		delete(codes, code)
	}
	if len(codes) > 0 {
		t.Errorf("codes that nobody knows: %v", codes)
	}
	for _, kind := range []string{events.TypeSubscriptionCreated, events.TypeUpgraded, events.TypeDowngraded, events.TypeDowngradeScheduled, events.TypeCancellationScheduled, events.TypeCancelled,
		events.TypeRenewalRecorded, events.TypeExpiryHandled, events.TypePaymentRecorded, events.TypePaymentFailureRecorded, events.TypeChangeWithdrawn, events.TypeSubscriptionRejected, events.TypeCompanyCreated,
		events.TypeUserProvisioned, events.TypeUserDeprovisioned, events.TypeSchemaUpgraded, events.TypeLimitsChanged, events.TypeCompanyArchived, events.TypeCompanyRejected, events.TypeConfigChanged, events.TypeNotificationRequested} {
		if types[kind] < 5 {
			t.Errorf("%s: %d times", kind, types[kind])
		}
	}
}

// A service is as simple as one can be: it takes messages in the order in which they come, and asks the judge for each. What it does
// itself is what the order is about: waiting, resends, conflicts, the schedule.
type service struct {
	judge   *judge
	seen    map[Identity]string
	waiting map[string][]*Event
}

func (s *service) take(e *Event) {
	text := fmt.Sprint(e.Type, e.Time, e.Data)
	if known, ok := s.seen[identity(e)]; ok {
		if known != text {
			s.judge.world.DeadLetters["conflict"]++
		}
		return
	}
	s.seen[identity(e)] = text
	if s.judge.companies[e.Company] == nil && e.Type != events.TypeCompanyRegistered {
		s.waiting[e.Company] = append(s.waiting[e.Company], e)
		return
	}
	s.judge.apply(e)
	if s.judge.companies[e.Company] != nil {
		for _, w := range s.waiting[e.Company] {
			s.judge.apply(w)
		}
		delete(s.waiting, e.Company)
	}
}

// Whatever order the consumers of the two topics work in, and whenever the schedule looks: the end is the same.
func TestTheEndDoesNotDependOnHowTheTopicsInterleave(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		config := everything(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 5).Draw(t, "phases"))
		config.Companies = 4
		config.Events = rapid.IntRange(4, 60*config.Phases).Draw(t, "events")
		g, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
		s := &service{judge: newJudge(), seen: map[Identity]string{}, waiting: map[string][]*Event{}}
		for phase := range config.Phases {
			queues := map[string][]*Event{}
			for _, e := range g.Events() {
				if e.Phase == phase {
					key := e.Topic + e.Company
					queues[key] = append(queues[key], e)
				}
			}
			for len(queues) > 0 {
				keys := slices.Sorted(maps.Keys(queues))
				key := keys[r.IntN(len(keys))]
				s.take(queues[key][0])
				if queues[key] = queues[key][1:]; len(queues[key]) == 0 {
					delete(queues, key)
				}
				// What the schedule publishes stands behind what is in the log already.
				ids := slices.DeleteFunc(slices.Sorted(maps.Keys(s.judge.companies)), func(id string) bool { return queues[events.TopicSubscription+id] != nil })
				if len(ids) > 0 && r.IntN(5) == 0 {
					s.judge.pass(s.judge.companies[ids[r.IntN(len(ids))]], end, &Event{Phase: phase})
				}
			}
			for _, id := range slices.Sorted(maps.Keys(s.judge.companies)) {
				s.judge.pass(s.judge.companies[id], end, &Event{Phase: phase})
			}
		}
		for _, c := range s.judge.companies {
			s.judge.pass(c, end.Add(config.Soon), nil)
		}
		for _, waiting := range s.waiting {
			for _, e := range waiting {
				s.judge.apply(e) // the time to wait is over
			}
		}
		s.judge.finish()
		if d := g.Expected().Compare(s.judge.world); len(d) > 0 {
			t.Fatalf("%d differences:\n%s", len(d), strings.Join(d[:min(len(d), 10)], "\n"))
		}
	})
}
