package operations

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// A Panel is a part of a report with what it says of itself: how old it is, and why it is not newer.
type Panel[T any] struct {
	// TakenAt is when the data was gathered; missing: never yet.
	TakenAt time.Time `json:"taken_at,omitzero"`
	// AgeSeconds is how old the data is; null: there is none.
	AgeSeconds *float64 `json:"age_seconds"`
	// Stale says that the data is older than it should be, or that there is none.
	Stale bool `json:"stale"`
	// Problem is why there is nothing newer, in words for a person.
	Problem string `json:"problem,omitempty"`
	Data    T      `json:"data"`

	silent bool // the problem is that there was no answer, and not a bad one
}

// A gatherer gathers the data of one panel, again and again.
type gatherer[T any] struct {
	from    string // who is asked, as it is said when there is no answer
	every   time.Duration
	timeout time.Duration
	take    func(context.Context) (T, error) // its result is not changed afterwards

	mu      sync.Mutex
	data    T
	taken   time.Time // zero: never
	problem string    // of the last look; empty: there was none
	silent  bool      // the problem is that nothing came in time
	asked   time.Time // when the look under way began; zero: none is
}

// run gathers until ctx ends.
func (g *gatherer[T]) run(ctx context.Context) {
	tick := time.NewTicker(g.every)
	defer tick.Stop()
	for {
		g.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (g *gatherer[T]) once(ctx context.Context) {
	g.mu.Lock()
	g.asked = time.Now()
	g.mu.Unlock()
	looking, cancel := context.WithTimeout(ctx, g.timeout)
	data, err := g.take(looking)
	late := looking.Err() != nil
	cancel()
	if ctx.Err() != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = time.Time{}
	switch {
	case err == nil:
		g.data, g.taken, g.problem = data, time.Now(), ""
	case late || timedOut(err):
		g.unanswered()
	default:
		g.problem, g.silent = err.Error(), false
	}
}

// timedOut reports whether an error says that there was no answer in time.
func timedOut(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}

// unanswered notes that nothing came in time.
func (g *gatherer[T]) unanswered() {
	g.problem, g.silent = fmt.Sprintf("%s did not answer within %s", g.from, g.timeout), true
}

// answered reports whether there is a problem that is an answer, or at least no silence: a login that is refused, a store that is still
// loading, a port on which nothing listens.
func (p *Panel[T]) answered() bool { return p.Problem != "" && !p.silent }

// show returns what was gathered last.
func (g *gatherer[T]) show(now time.Time) Panel[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := Panel[T]{TakenAt: g.taken.UTC(), Stale: true, Problem: g.problem, Data: g.data, silent: g.silent}
	if !g.taken.IsZero() {
		age := max(0, now.Sub(g.taken))
		seconds := tenths(age)
		p.AgeSeconds = &seconds
		p.Stale = age > 2*g.every+g.timeout
	}
	if !g.asked.IsZero() && now.Sub(g.asked) > g.timeout+time.Second {
		p.Problem, p.silent = fmt.Sprintf("%s has not answered for %s", g.from, now.Sub(g.asked).Round(time.Second)), true
	}
	if p.Problem != "" {
		p.Stale = true
	}
	return p
}

// tenths is a duration in seconds, with one decimal.
func tenths(d time.Duration) float64 {
	return float64(d.Round(100*time.Millisecond)/(100*time.Millisecond)) / 10
}
