package kafka

import (
	"fmt"
	"sort"
	"strconv"
	"sync"
	"time"

	"tenantflow/events"
	"tenantflow/internal/health"
)

// state sums up how the partitions of a group are, for readiness, liveness and metrics.
type state struct {
	part    string
	tracker *health.Tracker // may be nil
	metrics *Metrics

	mu         sync.Mutex
	generation int // of this process: how many there were
	joined     bool
	groupError error
	partitions map[place]*condition
	newest     map[string]time.Time // by topic, when the newest record was appended that has had its effects
}

type place struct {
	topic string
	id    int
}

func (p place) String() string { return fmt.Sprintf("%s/%d", p.topic, p.id) }

// The two halves of a partition's loop; each may wait for something of its own.
const (
	reading = iota
	writing
)

type condition struct {
	waiting [2]error
	stopped *StopError
	end     int64 // of the log, as far as is known
	stable  int64 // the end of what can be read of it: where the first open transaction begins, or end
	done    int64 // everything before it has had its effects
	open    bool  // end and done are known
	age     age
}

// lag counts what has not had its effects, read or not: a writer that is stuck with all that was read has a lag.
func (c *condition) lag() int64 { return max(0, c.end-c.done) }

// work is the part of the lag that the consumer could do something about. While a transaction is open, what lies behind its
// beginning can't be read, and a consumer that waits for it is not stuck.
func (c *condition) work() int64 { return max(0, min(c.end, c.stable)-c.done) }

func newState(part string, tracker *health.Tracker, metrics *Metrics) *state {
	s := &state{part: part, tracker: tracker, metrics: metrics, partitions: map[place]*condition{}, newest: map[string]time.Time{}}
	metrics.lagSeconds.of.Store(s)
	return s
}

// assigned begins a generation with these partitions, and returns its number for left. Missing says what keeps the group from having
// any.
func (s *state) assigned(places []place, missing error) (generation int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	s.metrics.stopped.Reset()
	s.metrics.lag.Reset()
	s.partitions = map[place]*condition{}
	for _, p := range places {
		s.partitions[p] = &condition{}
	}
	s.joined, s.groupError = true, missing
	s.metrics.assigned.Set(float64(len(places)))
	s.report()
	return s.generation
}

// count is the number of partitions assigned.
func (s *state) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.partitions)
}

// left ends a generation. Between two, nothing is assigned. kafka-go does not wait for what is started in a generation that is over
// already, so it may come when the next one has begun: then it changes nothing.
func (s *state) left(generation int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if generation != s.generation {
		return
	}
	s.partitions = map[place]*condition{}
	s.joined = false
	s.metrics.assigned.Set(0)
	s.report()
}

func (s *state) joining(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groupError = err
	s.report()
}

func (s *state) waiting(topic string, id, half int, reason error) {
	changed := false
	s.change(topic, id, func(c *condition) bool {
		was := c.waiting[half]
		c.waiting[half] = reason
		changed = (was == nil) != (reason == nil) || reason != nil && was.Error() != reason.Error()
		return changed
	})
	if reason != nil && !changed && s.tracker != nil {
		s.tracker.Still(s.part)
	}
	if reason != nil {
		s.progress() // it tries, and gets an answer: a restart would not mend that
	}
}

func (s *state) stopped(topic string, id int, err *StopError) {
	s.change(topic, id, func(c *condition) bool {
		c.stopped = err
		s.metrics.stopped.WithLabelValues(topic, strconv.Itoa(id), err.Kind).Set(1)
		return true
	})
}

// behind notes how far the log of a partition goes and how far its effects do.
func (s *state) behind(topic string, id int, note func(*condition)) {
	s.change(topic, id, func(c *condition) bool {
		before := c.work()
		note(c)
		s.metrics.lag.WithLabelValues(topic, strconv.Itoa(id)).Set(float64(c.lag()))
		if before != c.work() {
			s.load()
		}
		return (before == 0) != (c.work() == 0)
	})
}

// placed notes where the handler will be asked to begin.
func (s *state) placed(p place, offset int64) {
	s.change(p.topic, p.id, func(c *condition) bool { c.age.place(offset, time.Now()); return false })
}

// opened begins at an offset.
func (s *state) opened(topic string, id int, offset int64) {
	s.behind(topic, id, func(c *condition) {
		c.done, c.end, c.stable, c.open = offset, offset, offset, true
		c.age.place(offset, time.Now())
	})
}

// took notes the first record of a batch that begins at an offset.
func (s *state) took(from int64, r *events.Record) {
	s.change(r.Topic, r.Partition, func(c *condition) bool { c.age.took(from, r.Offset, r.Time); return false })
}

// read notes that the log was read to end, and goes on to at least there.
func (s *state) read(topic string, id int, end int64) {
	s.behind(topic, id, func(c *condition) {
		c.end, c.stable = max(c.end, end), max(c.stable, end)
		c.age.read(end)
	})
}

// ends notes how far the log was read, where it ends, and where what can be read of it ends.
func (s *state) ends(topic string, id int, next, end, stable int64) {
	s.behind(topic, id, func(c *condition) {
		c.end, c.stable = end, stable
		c.age.ends(next, end, time.Now())
	})
}

// advance notes that everything before done has had its effects, and when the last record of it was appended.
func (s *state) advance(topic string, id int, done int64, last time.Time) {
	s.behind(topic, id, func(c *condition) {
		c.done = done
		c.age.advance(done, last, time.Now())
		if last.After(s.newest[topic]) {
			s.newest[topic] = last
			s.metrics.newest.WithLabelValues(topic).Set(float64(last.UnixMilli()) / 1000)
		}
	})
}

// released notes that a partition is not read any more.
func (s *state) released(p place) {
	s.change(p.topic, p.id, func(c *condition) bool { c.age.release(time.Now()); return false })
}

// found takes in what a look at a log found. What the consumer could work on is not changed by it: that is what its reader sees.
func (s *state) found(u doubtful, seen sight) {
	s.behind(u.topic, u.id, func(c *condition) {
		c.age.found(seen, u.done, u.epoch, time.Now())
		if c.open {
			c.end = max(c.end, seen.end)
		}
	})
}

// A doubtful partition is one of whose log more must be known than its reader has said.
type doubtful struct {
	place
	done  int64
	epoch int
}

// unsure are the partitions whose log must be looked at now.
func (s *state) unsure(now time.Time) []doubtful {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []doubtful
	for p, c := range s.partitions {
		if c.age.unsure(now) {
			c.age.asked = now
			all = append(all, doubtful{p, c.age.done, c.age.epoch})
		}
	}
	return all
}

// ages are how old the oldest records without effect are, where that is known.
func (s *state) ages(now time.Time) map[place]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[place]time.Duration, len(s.partitions))
	for p, c := range s.partitions {
		if age, known := c.age.value(now); known {
			all[p] = age
		}
	}
	return all
}

// caughtUp reports whether everything that is known to be in the log has had its effects, and reading it does not fail.
func (s *state) caughtUp(topic string, id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.partitions[place{topic, id}]
	return c != nil && c.lag() == 0 && c.waiting[reading] == nil
}

// doneTo is the offset before which everything has had its effects.
func (s *state) doneTo(topic string, id int) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.partitions[place{topic, id}]; c != nil {
		return c.done
	}
	return 0
}

func (s *state) change(topic string, id int, f func(*condition) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.partitions[place{topic, id}]; c != nil && f(c) {
		s.report()
	}
}

func (s *state) progress() {
	if s.tracker != nil {
		s.tracker.Progress(s.part)
	}
}

// report tells the health tracker. The caller holds the lock.
func (s *state) report() {
	if s.tracker == nil {
		return
	}
	var stopped, waiting []string
	for p, c := range s.partitions {
		switch {
		case c.stopped != nil:
			stopped = append(stopped, fmt.Sprintf("%s: %v", p, c.stopped))
		case c.waiting[writing] != nil:
			waiting = append(waiting, fmt.Sprintf("%s: %v", p, c.waiting[writing]))
		case c.waiting[reading] != nil:
			waiting = append(waiting, fmt.Sprintf("%s: %v", p, c.waiting[reading]))
		}
	}
	s.load()
	switch {
	case len(stopped) > 0:
		s.tracker.Set(s.part, health.Stopped, summary(stopped))
	case len(waiting) > 0:
		s.tracker.Set(s.part, health.Failing, summary(waiting))
	case s.groupError != nil:
		s.tracker.Set(s.part, health.Failing, s.groupError.Error())
	case !s.joined:
		s.tracker.Set(s.part, health.Starting, "joining the consumer group")
	default:
		s.tracker.Set(s.part, health.Ready, "")
	}
}

// load tells the health tracker how much there is to do. The caller holds the lock.
func (s *state) load() {
	if s.tracker == nil {
		return
	}
	total := int64(0)
	for _, c := range s.partitions {
		total += c.work()
	}
	s.tracker.Load(s.part, len(s.partitions), total)
}

func summary(reasons []string) string {
	sort.Strings(reasons)
	if len(reasons) == 1 {
		return reasons[0]
	}
	return fmt.Sprintf("%s"+health.MorePartitions+"%d more partitions)", reasons[0], len(reasons)-1)
}
