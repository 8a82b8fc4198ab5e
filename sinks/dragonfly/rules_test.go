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

// owner is a process that counts a partition.
type owner struct {
	s      *simulation
	at     place
	todo   []func()
	next   int // everything before is counted
	epoch  int
	day    int
	server int // of its connection
	cut    bool
	noted  map[int]int
}

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

// open begins again on a new connection.
func (o *owner) open() {
	o.noted, o.todo, o.cut = map[int]int{}, nil, false
	o.server = o.s.store.server
	o.then(func() { o.look(true) })
}

func (o *owner) then(steps ...func()) { o.todo = append(o.todo, steps...) }

// first puts steps before all others.
func (o *owner) first(steps ...func()) { o.todo = append(slices.Clone(steps), o.todo...) }

// act does the next step, or finds one.
func (o *owner) act() {
	s := o.s
	if len(o.todo) == 0 {
		o.choose()
		return
	}
	if o.server != s.store.server || o.cut {
		same := o.server == s.store.server
		o.server, o.cut = s.store.server, false
		if !s.without.has(lookBeforeRetry) {
			if same {
				o.first(func() { o.look(false) }) // it may go on where it was
			} else {
				o.open()
			}
		}
	}
	step := o.todo[0]
	o.todo = o.todo[1:]
	step()
}

// choose finds something to do: look, write down the progress, or count a batch.
func (o *owner) choose() {
	s, log := o.s, o.s.logs[o.at]
	switch n := s.r.IntN(4); {
	case n == 0 && !s.without.has(lookWhenIdle):
		o.then(func() { o.look(false) })
		return
	case n == 1:
		progress := o.next
		if len(o.noted) == len(s.store.threads) && o.noted[0] == progress {
			return // it stands there
		}
		if s.without.has(progressCounted) {
			progress = min(log.end, o.next+2)
		}
		for k := range s.store.threads {
			o.then(func() { o.note(k, progress) })
		}
		return
	case n == 2 && s.r.IntN(2) == 0:
		log.committed, log.epoch = o.next, max(log.epoch, o.epoch)
		return
	}
	from, to := o.next, min(log.end, o.next+1+s.r.IntN(4))
	if to <= from {
		return
	}
	of := map[who][]int{}
	for i := from; i < to; i++ {
		e := log.events[i]
		if !e.claim || !s.known {
			of[e.who] = append(of[e.who], i)
		} else if !s.without.has(refusedCleared) {
			of[e.who] = slices.Clip(of[e.who]) // a call without events, if there are no others
		}
	}
	var calls []who
	for w := range of {
		calls = append(calls, w)
	}
	slices.SortFunc(calls, func(a, b who) int { return a.user - b.user + 100*(a.day-b.day) })
	s.r.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	for _, w := range calls {
		o.then(func() { o.call(w, from, to, of[w]) })
	}
	o.then(func() { o.next = to })
}

// call counts a user's events of a batch. The connection may be cut with the answer, and the call may arrive later.
func (o *owner) call(w who, from, to int, offsets []int) {
	s := o.s
	own := w.day >= o.day
	c := simCall{at: o.at, of: w, epoch: o.epoch, from: from, to: to, offsets: offsets, own: own, clear: own}
	owns := s.owners[o.at] == o
	if o.refused(func() { o.call(w, from, to, offsets) }) {
		// A single command is applied or not; what comes behind it in a script of Dragonfly may not be. Nothing helps against a zombie that
		// writes half of a counter of a day before the epoch's, which was lost: no call is made for it again.
		if c.half = true; owns && !s.store.oneStream && s.r.IntN(2) == 0 {
			s.store.count(c, s.without)
		}
		return
	}
	if s.r.IntN(40) == 0 {
		o.cut = true
		o.first(func() { o.call(w, from, to, offsets) })
		server := s.store.server
		s.late = append(s.late, func() {
			if s.store.server == server {
				s.store.count(c, s.without)
			}
		})
		return
	}
	answer := s.store.count(c, s.without)
	switch {
	case answer.later > 0:
		o.later(answer.later)
	case answer.mark > 0:
		behind := slices.DeleteFunc(slices.Clone(offsets), func(offset int) bool { return offset < answer.mark })
		if len(behind) > 0 {
			o.first(func() { o.call(w, answer.mark, to, behind) })
		}
	}
}

// refused reports whether the store has no memory for a step. The process dies, and another takes over; or it looks, and does
// the step again.
func (o *owner) refused(again func()) bool {
	s := o.s
	if s.r.IntN(1000) >= s.faults.memory {
		return false
	}
	if s.owners[o.at] == o && s.r.IntN(2) == 0 {
		s.take(o.at)
		return true
	}
	o.cut = true
	o.first(again)
	return true
}

// later deals with a counter of a later epoch: it has begun, or it was lost and a later one has to begin.
func (o *owner) later(epoch int) {
	highest, all := 0, true
	for _, t := range o.s.store.threads {
		sentinel, found := t.sentinels[o.at.log]
		all = all && found
		highest = max(highest, sentinel.epoch)
	}
	if all && highest < epoch {
		o.begin(epoch)
		return
	}
	o.open()
}

// note writes the progress to a sentinel.
func (o *owner) note(k, progress int) {
	if o.refused(func() { o.note(k, progress) }) {
		return
	}
	if !o.s.store.note(k, o.at, o.epoch, progress, o.s.without) {
		o.open()
		return
	}
	o.noted[k] = progress
}

// look reads the sentinels. Opening, the owner goes where they say.
func (o *owner) look(opening bool) {
	s := o.s
	highest, lowest := 0, 1<<60
	missing := false
	var seen []sentinel
	for _, t := range s.store.threads {
		sentinel, found := t.sentinels[o.at.log]
		if !found {
			missing = true
			continue
		}
		seen = append(seen, sentinel)
		highest, lowest = max(highest, sentinel.epoch), min(lowest, sentinel.epoch)
	}
	changed := slices.ContainsFunc(seen, func(x sentinel) bool { return x.server != s.store.server })
	switch {
	case missing && (!s.without.has(everySentinel) || len(seen) == 0),
		highest != lowest && !s.without.has(oneEpoch),
		!s.store.oneStream && changed && !s.without.has(anotherServer):
		o.begin(highest)
		return
	}
	if !opening && highest == o.epoch {
		for k, progress := range o.noted {
			if now := s.store.threads[k].sentinels[o.at.log].progress[o.at]; now.epoch != o.epoch || now.offset < progress {
				o.begin(highest) // it went back on a live connection
				return
			}
		}
		return
	}
	o.epoch, o.day = highest, seen[0].day
	start := 1 << 60
	if s.without.has(lowestProgress) {
		start = 0
	}
	for _, x := range seen {
		p, found := x.progress[o.at]
		switch {
		case !found || p.epoch != highest:
			start = min(start, o.dayBegins())
		case s.without.has(lowestProgress):
			start = max(start, p.offset)
		default:
			start = min(start, p.offset)
		}
	}
	if log := s.logs[o.at]; s.without.has(progressNotKafka) && log.committed >= 0 {
		start = log.committed
	}
	o.next, o.todo, o.noted = start, nil, map[int]int{}
}

// dayBegins is where the epoch's day begins in the log, or what is not counted yet, if that is further back.
func (o *owner) dayBegins() int {
	log := o.s.logs[o.at]
	i, _ := slices.BinarySearch(log.recorded, o.day)
	if log.committed < 0 {
		return 0
	}
	return min(i, log.committed)
}

// begin begins a new epoch, unless another owner has begun one later than the doubted.
func (o *owner) begin(doubted int) {
	s := o.s
	known, day, fresh := max(doubted, o.epoch), 0, true
	for at, log := range s.logs {
		if at.log != o.at.log {
			continue
		}
		fresh = fresh && log.committed < 0
		day = max(day, log.recorded[log.end-1])
		known = max(known, log.epoch)
	}
	epoch := (known/1000+1)*1000 + s.r.IntN(1000)
	if s.without.has(uniqueEpoch) {
		epoch = doubted + 1
	}
	if fresh {
		day = -1
	} else {
		s.rewound = true
	}
	o.todo = nil
	o.noted = map[int]int{}
	for k := range s.store.threads {
		o.then(func() {
			if o.refused(o.open) { // whether it has begun is seen then
				return
			}
			s.store.begin(k, o.at.log, max(doubted, o.epoch), epoch, day)
		})
	}
	o.then(func() { o.look(true) })
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
			if !t.expires[key.who] {
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
