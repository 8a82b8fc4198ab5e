package dragonfly_test

import "slices"

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
	owns := s.owners[o.at] == o && o.stands()
	if o.refused(func() { o.call(w, from, to, offsets) }) {
		// A single command is applied or not; what comes behind it in a script of Dragonfly may not be. Nothing helps against a zombie, or
		// an owner in a store that was emptied since it looked, that writes half of a counter of a day before the next epoch's: no call is
		// made for it again.
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

// stands reports whether all sentinels are of the owner's epoch.
func (o *owner) stands() bool {
	return !slices.ContainsFunc(o.s.store.threads, func(t *thread) bool { return t.sentinels[o.at.log].epoch != o.epoch })
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
