package totals

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"tenantflow/internal/retry"
)

// suspects are the totals of a chunk that differed at first sight, and what became of them.
type suspects struct {
	chunk
	cases    map[string]*suspicion // not judged yet, by name
	unlisted int64                 // more that differed at first sight

	wrong   []Total
	expired int64
}

// A suspicion is what looks at a key have shown so far.
type suspicion struct {
	key     []string
	seen    *Total                 // of the last look that counts; nil: none yet
	looks   int                    // that saw this same difference, without another one between them
	since   time.Time              // of the first of these, by ClickHouse's clock
	pending map[pendingInsert]bool // inserts that were pending in all of these and have rows in the key
	at      time.Time              // of the last of these
	zeros   int                    // looks in a row that saw no difference, but did not count
}

// A pendingInsert is an insert whose outcome the group's metadata leaves open: it may have the rows and not the totals.
type pendingInsert struct {
	partition int
	from      int64
}

const (
	// margin is how much longer than its deadline an insert may take to be seen: the server looks at the deadline when the
	// query begins, and ends it in whole seconds.
	margin = 2 * time.Second
	// looksNeeded is how many looks must see the same difference.
	looksNeeded = 3
	// zerosNeeded is how many looks in a row must see no difference where an insert ran during each of them.
	zerosNeeded = 3
	// rounds is how often suspects are looked at, with a wait between two rounds.
	rounds = 4
	// keysPerLook is how many keys are looked at together: the fewer, the shorter the moment in which no insert may run.
	keysPerLook = 1000
	// triesPerLook is how often a look is repeated because an insert ran during it.
	triesPerLook = 20
)

// judge decides about suspects. What is wrong goes to their wrong; what could not be judged is left in their cases.
func (c *Checker) judge(ctx context.Context, all []*suspects, border string) error {
	for round := 1; len(all) > 0; round++ {
		looks := looksNeeded - 1
		if round == 1 {
			looks = 1
		}
		for range looks {
			for n, s := range all {
				c.cfg.Progress("looking again", int64(n), int64(len(all)))
				if err := c.lookAgain(ctx, s); err != nil {
					return err
				}
			}
		}
		open, blocked := 0, 0
		for _, s := range all {
			s.decide(c.spacing())
			open += len(s.cases)
			for _, one := range s.cases {
				if one.looks >= looksNeeded && len(one.pending) > 0 {
					blocked++
				}
			}
		}
		// An insert that is pending all the time is not being settled: waiting for it here would not help.
		if open == 0 || open == blocked || round == rounds {
			break
		}
		if err := retry.Pause(ctx, c.spacing()); err != nil {
			return err
		}
	}
	for _, s := range all {
		slices.SortFunc(s.wrong, func(a, b Total) int { return strings.Compare(a.Name(), b.Name()) })
		if s.of.month == "" {
			if err := c.age(ctx, s, border); err != nil {
				return err
			}
		} else if err := s.begins(); err != nil {
			return err
		}
	}
	return nil
}

// spacing is how far the first and the last look at a difference lie apart at least.
func (c *Checker) spacing() time.Duration { return c.cfg.InsertTimeout + margin }

// decide takes the cases that are clear.
func (s *suspects) decide(spacing time.Duration) {
	for name, one := range s.cases {
		if one.looks >= looksNeeded && len(one.pending) == 0 && one.seen != nil && one.at.Sub(one.since) >= spacing {
			s.wrong = append(s.wrong, *one.seen)
			delete(s.cases, name)
		}
	}
}

// lookAgain has one look at every suspect of a chunk, if need be in several tries.
func (c *Checker) lookAgain(ctx context.Context, s *suspects) error {
	keys := make([][]string, 0, len(s.cases))
	for _, one := range s.cases {
		keys = append(keys, one.key)
	}
	for some := range slices.Chunk(keys, keysPerLook) {
		err := c.observe(ctx, s.chunk, some, func(key []string, o observation) bool { return s.note(key, o) })
		if err != nil {
			return err
		}
	}
	return nil
}

// An observation is what a look has seen of one key.
type observation struct {
	total     *Total // nil: no difference
	counts    bool   // no insert ran during the look
	at        time.Time
	positions []Position
}

// observe looks at keys until each look counts or the tries are used up. Of every key and try it calls note, which
// returns whether the key has been seen well enough.
//
// Rows land before their totals, and a query reads the table and the store one after the other. So a look at a key that is
// written to counts only if no insert ran when it began and when it ended, and none came and went in between: then
// the number of the newest block would be another one. Nor does it count where the group has gone on meanwhile in a
// partition of which the key has rows behind the positions read: they may be of an insert that was not known to be pending.
func (c *Checker) observe(ctx context.Context, ch chunk, keys [][]string, note func(key []string, o observation) bool) error {
	for try := 1; len(keys) > 0 && try <= triesPerLook; try++ {
		if try > 1 {
			if err := retry.Pause(ctx, time.Duration(rand.IntN(50*min(try, 5)))*time.Millisecond); err != nil { // #nosec G404 -- a pause
				return err
			}
		}
		before, err := c.awaitGap(ctx)
		if err != nil {
			return err
		}
		positions, _, err := ReadPositions(ctx, c.cfg.Client, c.cfg.Group, c.cfg.Topic)
		if err != nil {
			return err
		}
		found, err := c.lookAt(ctx, ch, keys, positions)
		if err != nil {
			return err
		}
		after, err := c.traffic(ctx)
		if err != nil {
			return err
		}
		later, _, err := ReadPositions(ctx, c.cfg.Client, c.cfg.Group, c.cfg.Topic)
		if err != nil {
			return err
		}
		counts := before.inserts == 0 && after.inserts == 0 && before.blocks == after.blocks
		var left [][]string
		for _, key := range keys {
			t := found[strings.Join(key, "|")]
			unknown := t != nil && slices.ContainsFunc(t.beyond, func(p uint16) bool { return moved(positions, later, p) })
			if !note(key, observation{total: t, counts: counts && !unknown, at: after.now, positions: positions}) {
				left = append(left, key)
			}
		}
		keys = left
	}
	return nil
}

// note takes an observation in, and returns whether it is enough for this look.
func (s *suspects) note(key []string, o observation) bool {
	name := strings.Join(key, "|")
	one := s.cases[name]
	switch {
	case o.total == nil && (o.counts || one.zeros+1 >= zerosNeeded):
		delete(s.cases, name)
		return true
	case o.total == nil:
		one.zeros++
		return false
	}
	one.zeros = 0
	if !o.counts {
		return false
	}
	pending := map[pendingInsert]bool{}
	for _, p := range o.positions {
		if slices.Contains(o.total.pending, uint16(p.Partition)) { // #nosec G115 -- a partition, as the table has it
			pending[pendingInsert{p.Partition, p.Committed}] = true
		}
	}
	if one.seen == nil || !one.seen.sameAs(o.total) {
		one.looks, one.since, one.pending = 0, o.at, pending
	}
	for p := range one.pending {
		if !pending[p] {
			delete(one.pending, p)
		}
	}
	one.looks++
	one.seen, one.at = o.total, o.at
	return true
}

// traffic is what the server says about inserts at one moment.
type traffic struct {
	inserts uint64 // running
	blocks  int64  // that were ever written, in a way
	now     time.Time
}

// traffic asks for the inserts that run and for the blocks of the tables. The mark of the service's inserts is how
// [clickhouse.Intent] names them.
func (c *Checker) traffic(ctx context.Context) (traffic, error) {
	var t traffic
	var now int64
	err := c.conn.QueryRow(ctx, statement("traffic", nil)).Scan(&t.inserts, &t.blocks, &now)
	if err != nil {
		return t, fmt.Errorf("look for inserts that run: %w", err)
	}
	t.now = time.UnixMilli(now)
	return t, nil
}

// awaitGap waits a little for a moment without an insert.
func (c *Checker) awaitGap(ctx context.Context) (traffic, error) {
	const tries, step = 20, 10 * time.Millisecond
	for try := 1; ; try++ {
		t, err := c.traffic(ctx)
		if err != nil || t.inserts == 0 || try == tries {
			return t, err
		}
		if err := retry.Pause(ctx, step); err != nil {
			return t, err
		}
	}
}
