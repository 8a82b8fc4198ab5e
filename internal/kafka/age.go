package kafka

import (
	"slices"
	"time"
)

// An age follows how old the oldest record of a partition is that has not had its effects, by the broker's time. Nothing of it
// changes while time passes, so the age goes on growing while nothing is read or written.
//
// Its knowledge comes from the reader, which sees the first record of every batch, and where the reader is away or waits, from a
// look at the log (see lookout). What is not known is not guessed: then there is no value.
type age struct {
	done   int64 // everything before it has had its effects
	placed bool  // done is known
	epoch  int   // rises when reading begins again somewhere, or ends

	firsts []first
	next   int64 // up to here there is no record from done on but the firsts and what follows them in their batches
	end    int64 // of the log
	whole  bool  // end was read from the broker after everything up to next, so the log may end there
	looked time.Time

	after   time.Time // the oldest record was appended after this: after the one before it, or after the log ended here; zero: not known
	changed time.Time // when done was set, or the reader went away
	asked   time.Time // when the log was looked at last
}

// A first says that the first record at or behind an offset is another offset's, which was appended at a time.
type first struct {
	from, offset int64
	at           time.Time
	checked      time.Time // when the log was asked; zero: a reader holds the record
}

// How long what is known counts. A log that is read says at least every half second where it ends.
const (
	lookAfter    = 700 * time.Millisecond // then the log is asked whether it has gone on
	doubtAfter   = 10 * time.Second       // then "nothing is left to do" is not known any more
	recheckAfter = 10 * time.Second       // then the log is asked whether it still holds a record that no reader holds
)

// place notes where the partition is, before anything was read from there.
func (a *age) place(offset int64, now time.Time) {
	if !a.placed || a.done != offset {
		*a = age{done: offset, placed: true, epoch: a.epoch + 1, next: offset, changed: now}
	}
}

// release notes that the reader is gone. What it has seen of the log is so until the log says otherwise.
func (a *age) release(now time.Time) {
	f, ok := a.oldest()
	a.epoch++
	a.firsts, a.changed = nil, now
	if ok {
		a.firsts, a.next = []first{{a.done, f.offset, f.at, now.Add(-recheckAfter)}}, a.done
	}
}

// took notes the first record of a batch that begins at from.
func (a *age) took(from, offset int64, at time.Time) {
	a.firsts = slices.DeleteFunc(a.firsts, func(f first) bool { return !f.checked.IsZero() })
	a.firsts = append(a.firsts, first{from: from, offset: offset, at: at})
}

// read notes that the reader has come to next, in a log that goes on at least so far.
func (a *age) read(next int64) {
	a.next = max(a.next, next)
	if next > a.end {
		a.end, a.whole = next, false
	}
}

// ends notes that the reader has come to next, and that the log ends at end.
func (a *age) ends(next, end int64, now time.Time) {
	if _, ok := a.oldest(); !ok && a.caughtUp() {
		a.after = a.looked
	}
	a.next = max(a.next, next)
	a.end, a.whole, a.looked = end, true, now
}

// advance notes that everything before done has had its effects, the last record of which was appended at last.
func (a *age) advance(done int64, last, now time.Time) {
	a.done, a.changed = done, now
	if !last.IsZero() {
		a.after = last
	}
	a.firsts = slices.DeleteFunc(a.firsts, func(f first) bool { return f.offset < done })
}

// oldest is the first record from done on.
func (a *age) oldest() (first, bool) {
	for _, f := range a.firsts {
		if f.from == a.done || f.from < a.done && a.done <= f.offset {
			return f, true
		}
	}
	return first{}, false
}

// caughtUp reports whether the log was seen to end where the effects do.
func (a *age) caughtUp() bool { return a.whole && max(a.done, a.next) >= a.end }

// value is how old the oldest record is, 0 if there is none; known: whether that can be said.
func (a *age) value(now time.Time) (value time.Duration, known bool) {
	if !a.placed {
		return 0, false
	}
	at := a.after // until the record itself is known
	if f, ok := a.oldest(); ok {
		at = f.at
	} else if a.caughtUp() {
		return 0, now.Sub(a.looked) <= doubtAfter
	}
	if at.IsZero() {
		return 0, false
	}
	return max(0, now.Sub(at)), true // a broker's clock may be ahead
}

// unsure reports whether the log should be looked at.
func (a *age) unsure(now time.Time) bool {
	f, ok := a.oldest()
	switch {
	case !a.placed || now.Sub(a.asked) < lookAfter:
		return false
	case ok:
		return !f.checked.IsZero() && now.Sub(f.checked) >= recheckAfter
	case a.caughtUp():
		return now.Sub(a.looked) >= lookAfter
	}
	return now.Sub(a.changed) >= lookAfter
}

// found takes in what a look at the log found, which began at done in an epoch: its first record from there on, if it has one, and
// its end.
func (a *age) found(seen sight, done int64, epoch int, now time.Time) {
	if a.done != done || a.epoch != epoch {
		return // meanwhile it went on, or begins elsewhere
	}
	if f, ok := a.oldest(); ok && f.checked.IsZero() {
		return // the reader was faster
	}
	a.firsts = nil
	if !seen.found {
		a.ends(max(done, seen.end), seen.end, now)
		return
	}
	a.end, a.whole, a.looked = max(a.end, seen.end), true, now
	a.firsts = []first{{done, seen.offset, seen.at, now}}
}
