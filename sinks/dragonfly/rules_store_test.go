package dragonfly_test

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// A rule is one that counting rests on. A history can leave one out, to show that the judge notices.
type rule string

// The rules. Each name says what is left out.
const (
	watermark        rule = "the watermark decides whether a call is counted"
	cutBatch         rule = "a call that begins before the watermark is sent again from there"
	lowerEpoch       rule = "a lower epoch is refused"
	higherEpoch      rule = "a higher epoch clears"
	lookBeforeRetry  rule = "nothing is sent over a new connection before a look"
	lookWhenIdle     rule = "the sentinels are looked at, also when idle"
	sentinelEpoch    rule = "a sentinel is written in its own epoch only, and never created by that"
	oneEpoch         rule = "two epochs among the sentinels are a new one"
	everySentinel    rule = "a missing sentinel is a new epoch"
	anotherServer    rule = "another Dragonfly is a new epoch"
	lowestProgress   rule = "an owner opens at the lowest progress"
	progressCounted  rule = "progress covers only what is counted"
	progressNotKafka rule = "an owner opens at the progress, not at the committed offset"
	uniqueEpoch      rule = "an epoch's number was never used before"
	ownShare         rule = "every log has a share of its own"
	refusedCleared   rule = "a call is made where a recount refuses all of a user's events, too"
	expiryAgain      rule = "a call that may be one made again sets the expiry"
)

// left are the rules that a history leaves out.
type left []rule

func (l left) has(r rule) bool { return slices.Contains(l, r) }

// place is a partition of a log.
type place struct{ log, partition int }

// who is a user's day.
type who struct{ user, day int }

// shareOf is a partition's field in the hash of a user's day.
type shareOf struct {
	who
	place
}

// share is what a partition has counted for a user's day.
type share struct{ epoch, mark, calls int }

// sentinel is one log's part of a sentinel.
type sentinel struct {
	epoch, day int
	server     int
	progress   map[place]progressAt
}

type progressAt struct{ epoch, offset, server int }

// thread is one thread of the simulated store: some users, and one sentinel.
type thread struct {
	shares    map[shareOf]share
	sentinels map[int]sentinel // by log
	expires   map[who]bool     // hashes
}

func newThread() *thread {
	return &thread{map[shareOf]share{}, map[int]sentinel{}, map[who]bool{}}
}

func (t *thread) clone() *thread {
	c := &thread{maps.Clone(t.shares), make(map[int]sentinel, len(t.sentinels)), maps.Clone(t.expires)}
	for k, s := range t.sentinels {
		s.progress = maps.Clone(s.progress)
		c.sentinels[k] = s
	}
	return c
}

// simStore is a store of which each thread is an ordered log of its own, as Dragonfly is; with one stream, as Redis is, all
// threads share one.
type simStore struct {
	oneStream bool
	threads   []*thread
	server    int // another number for another process or role
	history   [][]*thread
	snapshot  []*thread

	// halves are the users' days without an expiry in a state that was served again: it was saved between half of a script and its repetition.
	halves map[who]bool
}

const keptStates = 25

func newSimStore(threads int, oneStream bool) *simStore {
	s := &simStore{oneStream: oneStream, halves: map[who]bool{}}
	for range threads {
		s.threads = append(s.threads, newThread())
	}
	s.history = make([][]*thread, threads)
	s.changed()
	return s
}

// changed remembers the state that a replica may have got to.
func (s *simStore) changed(only ...int) {
	if s.oneStream || len(only) == 0 {
		only = only[:0]
		for k := range s.threads {
			only = append(only, k)
		}
	}
	for _, k := range only {
		s.history[k] = append(s.history[k], s.threads[k].clone())
		if len(s.history[k]) > keptStates {
			s.history[k] = s.history[k][1:]
		}
	}
}

func (s *simStore) cloneThreads() []*thread {
	c := make([]*thread, len(s.threads))
	for k, t := range s.threads {
		c[k] = t.clone()
	}
	return c
}

// replace makes the store another process with the given contents.
func (s *simStore) replace(threads []*thread) {
	s.threads = threads
	s.server++
	for _, t := range threads {
		for key := range t.shares {
			s.halves[key.who] = s.halves[key.who] || !t.expires[key.who]
		}
	}
	s.history = make([][]*thread, len(threads))
	s.changed()
}

// flush empties the store; connections live on.
func (s *simStore) flush() {
	for k := range s.threads {
		s.threads[k] = newThread()
	}
	s.changed()
}

// restore restarts it from the last snapshot, if there is one.
func (s *simStore) restore() {
	if s.snapshot == nil {
		return
	}
	saved := s.threads
	s.threads = s.snapshot
	again := s.cloneThreads()
	s.threads = saved
	s.replace(again)
}

// promote replaces it by a replica. On one stream that is some earlier state, else each thread has got to another one.
func (s *simStore) promote(r *rand.Rand) {
	back := r.IntN(len(s.history[0]))
	threads := make([]*thread, len(s.threads))
	for k := range threads {
		if !s.oneStream {
			back = r.IntN(len(s.history[k]))
		}
		threads[k] = s.history[k][back].clone()
	}
	s.replace(threads)
}

// promoteUnfinished replaces it by a replica in the middle of a full sync: all sentinels, and some of the counters.
func (s *simStore) promoteUnfinished(r *rand.Rand) {
	threads := s.cloneThreads()
	for _, t := range threads {
		maps.DeleteFunc(t.shares, func(shareOf, share) bool { return r.IntN(5) < 2 })
	}
	s.replace(threads)
}

// simCall is a call of count.lua.
type simCall struct {
	at         place
	of         who
	epoch      int
	from, to   int
	offsets    []int // of the user's events in the range
	own, clear bool  // the day is not before the epoch's; shares of lower epochs are cleared
	half       bool  // memory runs out behind the first write: the caller receives an error
}

// answerOf is what count.lua answers.
type answerOf struct {
	later int // the later epoch that the share belongs to; 0: none
	mark  int // where the caller has to go on; 0: nothing is left to do
}

// count does what count.lua does: one write with all the fields, and one that sets the expiry.
func (s *simStore) count(c simCall, without left) answerOf {
	k := c.of.user % len(s.threads)
	t := s.threads[k]
	if without.has(ownShare) {
		c.at.log = 0
	}
	key := shareOf{c.of, c.at}
	have, found := t.shares[key]
	if found && have.epoch > c.epoch && !without.has(lowerEpoch) {
		return answerOf{later: have.epoch}
	}
	if !found && (!c.own || len(c.offsets) == 0) {
		return answerOf{}
	}
	cleared := found && have.epoch < c.epoch && c.clear && !without.has(higherEpoch)
	if cleared {
		have, found = share{}, false
	}
	from := c.from
	again := !without.has(expiryAgain)
	if found && !without.has(watermark) {
		switch {
		case have.mark >= c.to:
			t.expires[c.of] = t.expires[c.of] || again
			return answerOf{}
		case have.mark > c.from && !without.has(cutBatch):
			t.expires[c.of] = t.expires[c.of] || again
			return answerOf{mark: have.mark}
		}
	}
	first := !found && !cleared || again && (cleared || have.epoch < c.epoch)
	for _, offset := range c.offsets {
		if offset >= from {
			have.calls++
		}
	}
	have.epoch, have.mark = c.epoch, c.to
	t.shares[key] = have
	if first && !c.half {
		t.expires[c.of] = true
	}
	s.changed(k)
	return answerOf{}
}

// note does what note.lua does: it says whether the sentinel is in that epoch.
func (s *simStore) note(k int, at place, epoch, offset int, without left) bool {
	t := s.threads[k]
	now, found := t.sentinels[at.log]
	if without.has(sentinelEpoch) && !found {
		now = sentinel{epoch: epoch, server: s.server, progress: map[place]progressAt{}}
		t.sentinels[at.log] = now
	} else if !found || now.epoch != epoch && !without.has(sentinelEpoch) {
		return false
	}
	if p := now.progress[at]; p.epoch == now.epoch && p.offset > offset && !without.has(sentinelEpoch) {
		offset = p.offset
	}
	now.progress[at] = progressAt{now.epoch, offset, s.server}
	s.changed(k)
	return true
}

// begin does what begin.lua does: the first that doubts an epoch begins the next.
func (s *simStore) begin(k, log, doubted, epoch, day int) {
	t := s.threads[k]
	if now, found := t.sentinels[log]; found && now.epoch > doubted {
		return
	}
	t.sentinels[log] = sentinel{epoch: epoch, day: day, server: s.server, progress: map[place]progressAt{}}
	s.changed(k)
}

// calls is a user's counter.
func (s *simStore) calls(w who) int {
	sum := 0
	for key, share := range s.threads[w.user%len(s.threads)].shares {
		if key.who == w {
			sum += share.calls
		}
	}
	return sum
}
