package service

import (
	"log/slog"
	"os"
	"runtime/debug"
)

// limitMemory sets the collector's memory limit to what the parts of the process need, unless GOMEMLIMIT is set. Left to itself it
// would let twice of what is in use pile up.
//
// Usage: the filter, and the budget three times over, for the rows held, for what is encoded of them, and for buffers and
// what is not collected yet. Quota: its budget twice, and what is known of users. Companies and subscriptions: the budgets of both twice.
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
	limit = max(limit, least)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	s.log.Debug("the collector is set", slog.Int64("limit_bytes", limit))
}
