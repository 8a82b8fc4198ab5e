package verify_test

import (
	"testing"
	"time"

	"tenantflow/internal/model"
)

// BenchmarkRun verifies the traffic of the demo: 1,000,000 messages in 8 partitions, with resends, late events over
// three months and malformed ones.
func BenchmarkRun(b *testing.B) {
	in := install(b, 8)
	const count = 1_000_000
	g, err := model.New(model.Config{Seed: 1, Count: count, Resends: 0.01, Late: 0.01, Malformed: 0.001,
		Start: time.Now().Add(-7 * time.Hour), Step: 20 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	in.publish(b, g, 0)
	stop := in.consume(b, 100_000)
	in.awaitConsumed(b)
	stop()
	in.awaitQuiet(b)
	for b.Loop() {
		r := in.verify(b, false)
		clean(b, r, g.Expected())
	}
	b.ReportMetric(count*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
