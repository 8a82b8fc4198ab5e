package dragonfly_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"tenantflow/internal/engine/enginetest"
)

// simEvent is one usage event.
type simEvent struct {
	who
	claim bool // it is refused once it is known whose its user was
}

// simLog is one partition's log. Its records become a day older at a time.
type simLog struct {
	events    []simEvent
	recorded  []int // day of each record
	end       int   // what is published
	committed int   // in Kafka; -1: nothing
	epoch     int   // in the metadata of that commit
}

// simulation is one history: a store, logs, their owners and zombies.
type simulation struct {
	r       *rand.Rand
	faults  faults
	without left
	store   *simStore
	logs    map[place]*simLog
	owners  map[place]*owner
	places  []place
	zombies []*owner
	late    []func() // calls that were sent before a connection was cut, and arrive afterwards
	rewound bool     // counters of earlier days may be short
	known   bool     // whose users were
	last    int      // the last day
}

// faults say how often, of a thousand steps, something happens.
type faults struct{ takeover, flush, restore, promote, unfinished, memory int }

// some are the faults of a store with a hard life, often those of one that is emptied again and again while owners come and go.
var (
	some  = faults{takeover: 15, flush: 6, restore: 6, promote: 5, unfinished: 3, memory: 20}
	often = faults{takeover: 30, flush: 15}
	// replicas are promoted, of which each thread has got to another state, but none in the middle of a full sync.
	replicas = faults{takeover: 15, promote: 10}
	// Memory runs out at any write of a script, and then the process is often gone.
	starved = faults{takeover: 15, flush: 3, memory: 150}
)

func newSimulation(seed uint64, f faults, without ...rule) *simulation {
	r := rand.New(rand.NewPCG(seed, 7))
	s := &simulation{r: r, faults: f, without: without, logs: map[place]*simLog{}, owners: map[place]*owner{}, last: 1}
	s.store = newSimStore(3, r.IntN(2) == 0)
	for _, at := range []place{{0, 0}, {0, 1}, {1, 0}} {
		s.add(at)
	}
	return s
}

// add makes a partition.
func (s *simulation) add(at place) {
	const length, users = 30, 5
	log := &simLog{committed: -1}
	for i := range length {
		day := i * (s.last + 1) / length
		event := simEvent{who: who{s.r.IntN(users), day}, claim: s.r.IntN(6) == 0}
		if s.r.IntN(5) == 0 {
			event.day = max(0, day-1) // late
		}
		log.events, log.recorded = append(log.events, event), append(log.recorded, day)
	}
	log.end = 4
	s.logs[at] = log
	s.places = append(s.places, at)
	s.take(at)
}

// take gives a partition a new owner.
func (s *simulation) take(at place) {
	o := &owner{s: s, at: at}
	o.open()
	s.owners[at] = o
}

// happen lets something happen.
func (s *simulation) happen() {
	at := s.places[s.r.IntN(len(s.places))]
	n := s.r.IntN(1000)
	is := func(often int) bool { n -= often; return n < 0 }
	switch {
	case is(70):
		log := s.logs[at]
		log.end = min(len(log.events), log.end+1+s.r.IntN(3))
	case is(s.faults.takeover): // the old owner goes on as a zombie, or is dead
		if s.r.IntN(10) < 6 {
			s.zombies = append(s.zombies, s.owners[at])
		}
		s.take(at)
	case is(10):
		if len(s.zombies) > 0 {
			i := s.r.IntN(len(s.zombies))
			s.zombies = slices.Delete(s.zombies, i, i+1)
		}
	case is(s.faults.flush):
		s.store.flush()
	case is(7):
		s.store.snapshot = s.store.cloneThreads()
	case is(s.faults.restore):
		s.store.restore()
	case is(s.faults.promote):
		s.store.promote(s.r)
	case is(s.faults.unfinished):
		if !s.store.oneStream {
			s.store.promoteUnfinished(s.r)
		}
	case is(2):
		if len(s.places) < 5 {
			s.add(place{0, len(s.places) - 1})
		}
	case is(1):
		s.known = true
	case is(26):
		if len(s.late) > 0 {
			i := s.r.IntN(len(s.late))
			s.late[i]()
			s.late = slices.Delete(s.late, i, i+1)
		}
	default:
		i := s.r.IntN(len(s.zombies) + len(s.places))
		if i < len(s.zombies) {
			s.zombies[i].act()
		} else {
			s.owners[s.places[i-len(s.zombies)]].act()
		}
	}
}

// run plays a history to its end and lists what is wrong: first everything happens, then one owner of each partition is left
// alone with the rest of its log.
func (s *simulation) run() []string {
	for range 800 {
		s.happen()
	}
	s.zombies, s.faults.memory = nil, 0
	if s.known { // then a last epoch counts what is not refused
		delete(s.store.threads[0].sentinels, 0)
		delete(s.store.threads[0].sentinels, 1)
		s.rewound = true // of days before, what is refused may have been counted or not
	}
	for _, at := range s.places {
		s.logs[at].end = len(s.logs[at].events)
	}
	for range 400 * len(s.places) {
		s.owners[s.places[s.r.IntN(len(s.places))]].act()
	}
	want := map[who]int{}
	for _, log := range s.logs {
		for _, e := range log.events {
			if !s.known || !e.claim || e.day < s.last {
				want[e.who]++
			}
		}
	}
	var wrong []string
	for w, n := range want {
		got := s.store.calls(w)
		// A new epoch does not bring back what was lost of days before its own; never may it count too much.
		if got != n && (w.day == s.last || got > n || !s.rewound) {
			wrong = append(wrong, fmt.Sprintf("user %d, day %d: %d calls, want %d", w.user, w.day, got, n))
		}
	}
	for _, t := range s.store.threads {
		for key := range t.shares {
			// Nothing helps against a state with half a counter of a day that no later epoch counts, either.
			if !t.expires[key.who] && (key.day == s.last || !s.store.halves[key.who]) {
				wrong = append(wrong, fmt.Sprintf("user %d, day %d never expires", key.user, key.day))
			}
		}
	}
	return wrong
}

// histories is how many are played: a few, or as many as TENANTFLOW_TEST_HISTORIES says.
func histories(t *testing.T, few int) int {
	t.Helper()
	return enginetest.Number(t, "TENANTFLOW_TEST_HISTORIES", few)
}

func TestRules_NoHistoryIsCountedWrongly(t *testing.T) {
	t.Parallel()
	first := rand.Uint64()
	for i := range histories(t, 300) {
		seed := first + uint64(i) // #nosec G115 -- a small number
		f := some
		switch i % 10 {
		case 0:
			f = often
		case 1, 2:
			f = starved
		}
		if wrong := newSimulation(seed, f).run(); len(wrong) > 0 {
			t.Fatalf("seed %d, %+v: %v", seed, f, wrong)
		}
	}
}

func TestRules_EachOneLeftOutIsNoticed(t *testing.T) {
	t.Parallel()
	for _, without := range []rule{watermark, cutBatch, higherEpoch, lookBeforeRetry, lookWhenIdle, sentinelEpoch, oneEpoch,
		everySentinel, anotherServer, progressCounted, progressNotKafka, ownShare, refusedCleared} {
		t.Run(string(without), func(t *testing.T) {
			t.Parallel()
			noticed(t, some, without)
		})
	}
	// Some hide behind others, or behind luck.
	for last, hidden := range map[rule]struct {
		faults  faults
		without []rule
	}{
		uniqueEpoch: {often, nil}, lowerEpoch: {often, nil}, expiryAgain: {starved, nil}, lowestProgress: {replicas, []rule{anotherServer}},
	} {
		t.Run(string(last), func(t *testing.T) {
			t.Parallel()
			noticed(t, hidden.faults, append(hidden.without, last)...)
		})
	}
}

// noticed sees that some history without the rules is counted wrongly.
func noticed(t *testing.T, f faults, without ...rule) {
	t.Helper()
	const most = 3000
	for seed := range uint64(most) {
		if len(newSimulation(seed, f, without...).run()) > 0 {
			t.Logf("seed %d is wrong", seed)
			return
		}
	}
	t.Errorf("none of %d histories is wrong without it", most)
}
