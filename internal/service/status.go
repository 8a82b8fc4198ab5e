package service

import (
	"context"
	"log/slog"
	"time"
)

// statusInterval is how often a service at work says how it gets on.
const statusInterval = 10 * time.Second

// report writes a log line every statusInterval, until ctx ends: rows written and per second, dead letters, lag. A
// service with nothing to do says nothing. The numbers are those of /metrics.
func (s *Service) report(ctx context.Context) {
	ticker := time.NewTicker(statusInterval)
	defer ticker.Stop()
	last := s.numbers()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := s.numbers()
		if now != last {
			s.log.Info("progress",
				slog.Int64("rows", now.rows),
				slog.Int64("rows_per_second", (now.rows-last.rows)/int64(statusInterval/time.Second)),
				slog.Int64("dead_letters", now.deadLetters),
				slog.Int64("lag", now.lag),
			)
		}
		last = now
	}
}

type numbers struct{ rows, deadLetters, lag int64 }

func (s *Service) numbers() numbers {
	families, err := s.registry.Gather()
	if err != nil {
		return numbers{}
	}
	var n numbers
	into := map[string]*int64{
		"tenantflow_batch_rows_total":   &n.rows,
		"tenantflow_dead_letters_total": &n.deadLetters,
		"tenantflow_partition_lag":      &n.lag,
	}
	for _, family := range families {
		if sum := into[family.GetName()]; sum != nil {
			for _, m := range family.GetMetric() {
				*sum += int64(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	return n
}
