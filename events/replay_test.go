package events_test

import (
	"slices"
	"testing"

	"tenantflow/events"
)

func TestReplayHeaders_AreProvenForTheirEventAlone(t *testing.T) {
	key := events.ReplayKey("0123456789abcdef0123456789abcdef")
	original := []events.Header{{Key: "ce_id", Value: []byte("1")}, {Key: "ce_source", Value: []byte("/s")}}
	once := key.ReplayHeaders(original, "task-1", []string{"usage"}, "/s", "1")
	headers := key.ReplayHeaders(once, "task-2", []string{"usage", "company"}, "/s", "1")
	if len(headers) != 5 || !slices.EqualFunc(headers[:2], original, func(a, b events.Header) bool { return a.Key == b.Key && string(a.Value) == string(b.Value) }) {
		t.Fatalf("headers of a replay of a replay: %v", headers)
	}
	r, ok := events.ReadReplayed(headers)
	if !ok || r.Task != "task-2" || !r.Names("usage") || !r.Names("company") || r.Names("quota") {
		t.Fatalf("read %+v, %v", r, ok)
	}
	if !key.Proven(&r, "/s", "1") {
		t.Error("the service's own headers are not proven")
	}
	for what, proven := range map[string]bool{
		"another event":  key.Proven(&r, "/s", "2"),
		"another source": key.Proven(&r, "/t", "1"),
		"another key":    events.ReplayKey("another").Proven(&r, "/s", "1"),
		"no key":         events.ReplayKey(nil).Proven(&r, "/s", "1"),
	} {
		if proven {
			t.Errorf("%s is proven", what)
		}
	}
	for _, changed := range []events.Header{
		{Key: events.HeaderReplayEffects, Value: nil}, {Key: events.HeaderReplayID, Value: []byte("task-3")}, {Key: events.HeaderReplayProof, Value: []byte("00")},
	} {
		forged, ok := events.ReadReplayed(append(slices.Clone(headers), changed))
		if !ok || key.Proven(&forged, "/s", "1") {
			t.Errorf("with another %s it is proven", changed.Key)
		}
	}
	if _, ok := events.ReadReplayed(original); ok {
		t.Error("an original counts as replayed")
	}
	alone := []events.Header{{Key: events.HeaderReplayEffects, Value: []byte("usage")}}
	if r, ok := events.ReadReplayed(alone); !ok || key.Proven(&r, "/s", "1") {
		t.Error("effects without a proof are proven")
	}
	if got := testing.AllocsPerRun(100, func() { _, _ = events.ReadReplayed(original) }); got != 0 {
		t.Errorf("an ordinary record costs %v allocations", got)
	}
}
