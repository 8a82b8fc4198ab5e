package replay_test

import (
	"os"
	"strconv"
	"testing"

	"tenantflow/internal/model"
	"tenantflow/internal/task"
)

// BenchmarkReplay_AllThere replays a topic of REPLAY_EVENTS events (default: 500,000) whose rows are all there, so that nothing is
// published. It reports events a second:
//
//	REPLAY_EVENTS=2000000 go test ./internal/replay -run '^$' -bench AllThere -benchtime 1x
func BenchmarkReplay_AllThere(b *testing.B) {
	count := 500_000
	if text := os.Getenv("REPLAY_EVENTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatalf("REPLAY_EVENTS=%s is no number", text)
		}
		count = n
	}
	w := newWorld(b, 8)
	g := generator(b, model.Config{Seed: 11, Count: count})
	w.publish(b, g, count)
	stop := w.consume(b, nil)
	w.awaitConsumed(b)
	stop()
	s := w.station(b)
	read := int64(0)
	for b.Loop() {
		t := s.run(b, s.create(b, everything()).ID)
		if t.State != task.Done || t.Counts["already_there"] != g.Expected().Messages {
			b.Fatalf("%s %s: %v, want %d already there", t.State, t.Message, t.Counts, g.Expected().Messages)
		}
		read += t.Counts["already_there"]
	}
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "events/s")
}
