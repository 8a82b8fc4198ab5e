package kafka

import (
	"log/slog"
	"testing"
	"time"

	"tenantflow/internal/health"
)

// The end of a generation may be told when the next one has begun.
func TestState_TheEndOfAnOlderGenerationChangesNothing(t *testing.T) {
	t.Parallel()
	tracker := health.New(time.Minute, slog.New(slog.DiscardHandler), "usage")
	s := newState("usage", tracker, NewMetrics(nil, "usage"))
	first := s.assigned(nil, nil)
	second := s.assigned([]place{{"usage.events", 3}}, nil)
	s.left(first)
	if !s.joined || s.count() != 1 {
		t.Errorf("joined %v, %d partitions", s.joined, s.count())
	}
	s.left(second)
	if s.joined || s.count() != 0 {
		t.Errorf("after its own end: joined %v, %d partitions", s.joined, s.count())
	}
}
