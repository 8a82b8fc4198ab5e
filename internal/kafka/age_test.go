package kafka

import (
	"testing"
	"time"
)

// aging is an age with a clock that the test moves.
type aging struct {
	*testing.T
	age
	now time.Time
}

func newAging(t *testing.T) *aging {
	t.Parallel()
	a := &aging{T: t, now: time.Unix(1_800_000_000, 0)}
	a.place(10, a.now)
	return a
}

func (a *aging) pass(d time.Duration) { a.now = a.now.Add(d) }

func (a *aging) want(d time.Duration) {
	a.Helper()
	if got, known := a.value(a.now); !known || got != d {
		a.Errorf("the age is %s (known: %t), want %s", got, known, d)
	}
}

func (a *aging) wantUnknown() {
	a.Helper()
	if got, known := a.value(a.now); known {
		a.Errorf("the age is %s, want none", got)
	}
}

func (a *aging) wantUnsure(want bool) {
	a.Helper()
	if got := a.unsure(a.now); got != want {
		a.Errorf("unsure is %t, want %t", got, want)
	}
}

// look looks at the log, as the lookout does.
func (a *aging) look(s sight) {
	a.asked = a.now
	a.found(s, a.done, a.epoch, a.now)
}

func TestAge_GrowsWithTheClockUntilTheRecordIsWritten(t *testing.T) {
	a := newAging(t)
	a.wantUnknown()
	old, younger := a.now.Add(-time.Hour), a.now.Add(-time.Minute)
	a.took(10, 12, old) // 10 and 11 are no records
	a.took(20, 20, younger)
	a.ends(30, 30, a.now)
	a.want(time.Hour)
	a.pass(time.Minute)
	a.want(time.Hour + time.Minute)
	a.ends(30, 30, a.now)
	a.advance(20, old.Add(time.Second), a.now)
	a.want(2 * time.Minute)
	a.advance(30, younger, a.now)
	a.want(0)
}

func TestAge_CaughtUpIsKnownAsLongAsTheLogAnswers(t *testing.T) {
	a := newAging(t)
	a.ends(10, 10, a.now)
	a.want(0)
	a.wantUnsure(false)
	a.pass(lookAfter)
	a.wantUnsure(true)
	a.look(sight{end: 10})
	a.wantUnsure(false)
	a.pass(doubtAfter + 1)
	a.wantUnknown()
	a.look(sight{found: true, offset: 10, at: a.now.Add(-time.Second), end: 11})
	a.want(time.Second)
}

// Control records stand at offsets, and are nothing that waits for an effect.
func TestAge_WhatIsNoRecordHasNone(t *testing.T) {
	a := newAging(t)
	a.ends(13, 13, a.now)
	a.want(0)
	a.took(10, 13, a.now)
	a.ends(14, 14, a.now)
	a.pass(time.Second)
	a.want(time.Second)
}

// The reader is in the midst of a fetch and waits for memory: what it has read is written, and the log may go on.
func TestAge_IsBoundedByTheRecordBeforeUntilALookFindsIt(t *testing.T) {
	a := newAging(t)
	a.ends(10, 10, a.now)
	a.took(10, 10, a.now)
	a.read(20)
	a.advance(20, a.now, a.now)
	a.pass(lookAfter)
	a.want(lookAfter) // not older than this, and not 0
	a.wantUnsure(true)
	a.look(sight{found: true, offset: 20, at: a.now.Add(-time.Millisecond), end: 30})
	a.want(time.Millisecond)
	a.took(20, 20, a.now.Add(-time.Millisecond))
	a.ends(30, 30, a.now)
	a.pass(time.Second)
	a.want(time.Second + time.Millisecond)
	a.advance(30, a.now, a.now)
	a.want(0)
}

func TestAge_ARecordInTheFutureIsNotNegative(t *testing.T) {
	a := newAging(t)
	a.took(10, 10, a.now.Add(time.Hour))
	a.ends(11, 11, a.now)
	a.want(0)
}

func TestAge_OutlivesItsReaderAndIsCheckedThen(t *testing.T) {
	a := newAging(t)
	a.took(10, 10, a.now)
	a.took(20, 20, a.now.Add(time.Second))
	a.ends(30, 30, a.now)
	a.release(a.now)
	a.pass(time.Minute)
	a.want(time.Minute)
	a.wantUnsure(true)
	a.look(sight{found: true, offset: 25, at: a.now.Add(-time.Second), end: 30}) // retention was at work
	a.want(time.Second)
	a.wantUnsure(false)
	a.pass(recheckAfter)
	a.wantUnsure(true)
	a.look(sight{end: 30}) // now everything is gone
	a.want(0)
	// Another session begins where this one did, and sees it all.
	a.place(10, a.now)
	a.took(10, 25, a.now.Add(-time.Hour))
	a.want(time.Hour)
}

func TestAge_ALookThatWasOvertakenSaysNothing(t *testing.T) {
	a := newAging(t)
	done, epoch := a.done, a.epoch
	a.place(5, a.now)
	a.found(sight{end: 10}, done, epoch, a.now)
	a.wantUnknown()
	done, epoch = a.done, a.epoch
	a.took(5, 5, a.now.Add(-time.Minute))
	a.found(sight{end: 5}, done, epoch, a.now)
	a.want(time.Minute)
}

// The log was cut, or is another one: its first record is the oldest without effect, wherever it stands.
func TestAge_APositionBeyondTheLogHasItsFirstRecord(t *testing.T) {
	a := newAging(t)
	a.look(sight{found: true, offset: 0, at: a.now.Add(-time.Minute), end: 3})
	a.want(time.Minute)
}

// A transaction begins after an hour of rest. Its first record can't be read yet, and was appended since the log was seen to end.
func TestAge_IsBoundedByTheTimeWhenTheLogEnded(t *testing.T) {
	a := newAging(t)
	a.took(10, 10, a.now)
	a.ends(11, 11, a.now)
	a.advance(11, a.now, a.now)
	a.pass(time.Hour)
	a.ends(11, 11, a.now)
	a.want(0)
	a.pass(time.Second / 2)
	a.ends(11, 12, a.now)
	a.want(time.Second / 2)
	a.pass(lookAfter)
	a.ends(11, 12, a.now)
	a.want(time.Second/2 + lookAfter)
	a.wantUnsure(true)
}
