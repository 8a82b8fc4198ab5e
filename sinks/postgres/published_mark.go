package postgres

import (
	"sync"
	"time"
)

const (
	// markSlack is how long before a look that found nothing the next one begins: longer than from the time that a row names to its commit.
	markSlack = 90 * time.Second
	// markWhole is how often everything is looked through: a row that was committed later still is found then.
	markWhole = 5 * time.Minute
)

// A publishedMark is a time before which everything that was done is known to be published. Without it, a look would begin with the first row that
// ever was unpublished: while a transaction of any session stays open, an index keeps the entries of all rows that have left it.
type publishedMark struct {
	mu    sync.Mutex
	from  time.Time // by Postgres' clock; zero: not known
	whole time.Time // when everything was looked through last
}

// since is where a look begins; nil: at the first row.
func (m *publishedMark) since() *time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.from.IsZero() || time.Since(m.whole) >= markWhole {
		return nil
	}
	from := m.from
	return &from
}

// nothing notes that a look that began at a time has found nothing that was done before another one.
func (m *publishedMark) nothing(since *time.Time, before time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if since == nil {
		m.whole = time.Now()
	}
	m.from = before.Add(-markSlack)
}
