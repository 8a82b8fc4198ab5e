package postgres

import (
	"sync"
	"time"
)

const (
	// lockTimeout is how long an event waits for a lock that another session holds. Its partition, with all its other companies, waits
	// with it, and so does a connection of the pool.
	lockTimeout = 200 * time.Millisecond
	// leastTimeout is how long it waits where events have waited in vain for locks lately. Each of a hundred companies that are locked at
	// once would otherwise cost all the others the whole time.
	leastTimeout = 10 * time.Millisecond
	// lockShare is by how much longer than it was waited the time for a wait takes to be regained: beyond the least timeout, half a percent
	// of the time is waited, which is too rare for the other companies' 99th percentile.
	lockShare = 200
)

// A lockPatience is how long the events of this process may still wait for locks of other sessions. nil: no partition waits with them.
type lockPatience struct {
	mu    sync.Mutex
	whole time.Time // when a whole wait is allowed again
}

// timeout is how long an event may wait for a lock now.
func (p *lockPatience) timeout() time.Duration {
	if p == nil {
		return lockTimeout
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(leastTimeout, lockTimeout-max(0, time.Until(p.whole)/lockShare))
}

// spend notes that an event has waited in vain.
func (p *lockPatience) spend(waited time.Duration) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	left := max(0, time.Until(p.whole)) + waited*lockShare
	p.whole = time.Now().Add(min(left, lockTimeout*lockShare))
}
