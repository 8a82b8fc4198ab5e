// Package retry repeats calls whose failure may be temporary: a store that restarts, a broker that elects a leader.
//
// Every wait of the service is one of these: 100 ms at first, half as long again with each try, 2 s at most, and each drawn at
// random from half to one and a half of that, so that processes which failed together do not come back together. Tries never
// run out: what waits says so in readiness, and ends with its context.
//
// [Do] repeats a call. A loop that goes on between its failures keeps a [Backoff] of its own.
package retry

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// The first delay and the longest. After an outage most of what recovery takes is the wait of the last partition to try again, so the
// longest is short; a try that fails at once costs a store next to nothing, and one that hangs has a deadline of its own.
const (
	first = 100 * time.Millisecond
	most  = 2 * time.Second
)

// A Backoff is how long to wait before the next try. It is for one goroutine.
type Backoff struct{ delays *backoff.ExponentialBackOff }

// New returns a Backoff that begins at the first delay.
func New() *Backoff { return Between(first, most) }

// Between is New with another first delay and another longest one, for what costs more to try than a request.
func Between(first, most time.Duration) *Backoff {
	return &Backoff{backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(first), backoff.WithMaxInterval(most), backoff.WithMaxElapsedTime(0))}
}

// Next is the next delay.
func (b *Backoff) Next() time.Duration { return b.delays.NextBackOff() }

// Reset begins at the first delay again, after something has succeeded.
func (b *Backoff) Reset() { b.delays.Reset() }

// Wait waits for the next delay. Its error is the cause of ctx's end.
func (b *Backoff) Wait(ctx context.Context) error { return Pause(ctx, b.Next()) }

// Do is DoBetween with the first delay and the longest one of [New].
func Do(ctx context.Context, try func() error, failed func(error) error) error {
	return DoBetween(ctx, first, most, try, failed)
}

// DoBetween calls try until it returns nil. After each failure it asks failed, which notes what is waited for and returns nil, or
// returns the error to give up with. When ctx ends before the next try, DoBetween returns what try returned last. The delays are those of
// [Between].
func DoBetween(ctx context.Context, first, most time.Duration, try func() error, failed func(error) error) error {
	var delays *Backoff
	for {
		err := try()
		if err == nil {
			return nil
		}
		if final := failed(err); final != nil {
			return final
		}
		if delays == nil { // most calls succeed at once
			delays = Between(first, most)
		}
		if delays.Wait(ctx) != nil {
			return err
		}
	}
}

// Waited is how long a call has taken, as errors say it: in seconds, or tenths of one at first, and never none at all.
func Waited(since time.Time) time.Duration {
	took := time.Since(since)
	if took > time.Second {
		return took.Round(time.Second)
	}
	return max(100*time.Millisecond, took.Round(100*time.Millisecond))
}

// Pause waits for d. Its error is the cause of ctx's end.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
