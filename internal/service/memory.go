package service

import (
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
)

// memory keeps the memory limit of the garbage collector. Without one the heap would grow to twice of what is in use.
type memory struct {
	mu    sync.Mutex
	fixed int64 // what the parts of the process need, whatever they do
	grown int64 // beside that: what partitions remember of resends
	own   bool  // GOMEMLIMIT is set, and counts
}

// limitMemory sets the collector's memory limit to what the parts of the process need, unless GOMEMLIMIT is set.
//
// Usage: the filter, and the budget three times over, for the rows held, for what is encoded of them, and for buffers and
// what is not collected yet. Quota: its budget twice, and what is known of users; what its partitions remember of resends comes on top
// as it grows, see grow. Companies and subscriptions: the budgets of both twice.
//
// Without usage a process holds little and much passes through it: it would collect several times a second, each time in the way
// of requests under way. So it collects less often, unless GOGC says how often.
func (s *Service) limitMemory() {
	const least, users, relaxed = 128 << 20, 64 << 20, 400
	var limit int64
	if s.has("usage") {
		limit += int64(s.cfg.UsageFilterMemory) + 3*int64(s.cfg.UsageMemory)
	} else if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(relaxed)
	}
	if s.has("quota") {
		limit += 2*int64(s.cfg.QuotaMemory) + users
	}
	for _, name := range []string{"subscription", "company"} {
		if s.has(name) {
			limit += 2 * int64(tenantMemory)
		}
	}
	s.memory.fixed, s.memory.own = max(limit, least), os.Getenv("GOMEMLIMIT") != ""
	s.log.Debug("the collector is set", slog.Int64("limit_bytes", s.memory.limit(0)))
}

// grow gives what partitions remember so many bytes more. With a limit that does not know of them the collector would run all the time
// once they are full.
func (m *memory) grow(bytes int64) { m.limit(bytes) }

// limit sets the collector's limit after a change, and returns it. What grows is copied, so for a while there is half as much again.
func (m *memory) limit(change int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.grown += change
	limit := m.fixed + m.grown + m.grown/2
	if !m.own {
		debug.SetMemoryLimit(limit)
	}
	return limit
}
