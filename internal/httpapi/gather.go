package httpapi

import (
	"context"
	"sync"
	"time"

	"tenantflow/sinks/dragonfly"
)

// A Reader is a Quotas that reads for many users with one request to the store. An API whose Quotas is one asks in
// groups: thousands of small requests a second would cost the store and this process more than what they read.
type Reader interface {
	Quotas
	// Read returns what users have used on a UTC day, in their order, and then whether the counters are being rebuilt.
	// Wrong says, by place, whose counters can't be read although the store has answered.
	Read(ctx context.Context, users []string, day time.Time) (counters []dragonfly.Counters, wrong map[int]error, rebuilding bool, err error)
}

// maxReads is how many groups are read at the same time: while some are on their way, the answers of others are taken
// apart, and one that is held up does not hold up all who come after it. Many more would only make the groups smaller.
const maxReads = 4

// A gatherer makes groups of what requests want to read while others are being read. No request waits for a group to fill:
// when the store is quick, a group is one request.
type gatherer struct {
	from Reader

	mu      sync.Mutex
	running int
	next    *group // nil: no request waits
}

// A group is read together.
type group struct {
	users []string
	day   time.Time

	done       chan struct{} // closed when what follows is there
	counters   []dragonfly.Counters
	wrong      map[int]error
	rebuilding bool
	err        error
}

// read returns what a user has used on a day, and whether the counters were being rebuilt when that had been read.
func (g *gatherer) read(ctx context.Context, user string, day time.Time) (dragonfly.Counters, bool, error) {
	g.mu.Lock()
	if g.next != nil && !g.next.day.Equal(day) {
		g.begin(ctx) // midnight has passed; one more than maxReads does no harm
	}
	if g.next == nil {
		g.next = &group{day: day, done: make(chan struct{})}
	}
	mine, place := g.next, len(g.next.users)
	mine.users = append(mine.users, user)
	if g.running < maxReads {
		g.begin(ctx)
	}
	g.mu.Unlock()

	select {
	case <-mine.done:
	case <-ctx.Done():
		return dragonfly.Counters{}, false, context.Cause(ctx)
	}
	if mine.err != nil {
		return dragonfly.Counters{}, false, mine.err
	}
	return mine.counters[place], mine.rebuilding, mine.wrong[place]
}

// begin has the next group read. The caller holds the lock. The group is not the first request's alone, so it does not
// end with that.
func (g *gatherer) begin(ctx context.Context) {
	now := g.next
	g.next = nil
	g.running++
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	go func() {
		defer cancel()
		now.counters, now.wrong, now.rebuilding, now.err = g.from.Read(ctx, now.users, now.day)
		close(now.done)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.running--
		if g.next != nil {
			g.begin(ctx)
		}
	}()
}
