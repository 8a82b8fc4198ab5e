package consumers_test

import (
	"log/slog"
	"syscall"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
)

// cpu is the user and system time this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkUsageBacklog reads a backlog of events that are all new, at default settings, from Apache Kafka into
// ClickHouse. An operation is the whole backlog; look at rows/s and at the CPU time this process takes for a row.
func BenchmarkUsageBacklog(b *testing.B) {
	const rows = 500_000
	broker := enginetest.SharedApacheKafka(b)
	messages, _ := traffic(b, model.Config{Seed: 3, Count: rows})
	for b.Loop() {
		b.StopTimer()
		f := newFixture(b, fixtureOptions{broker: broker, partitions: 8})
		f.publish(b, messages)
		before, began := cpu(), time.Now()
		b.StartTimer()
		stop := f.start(b, consumer{insertTimeout: 15 * time.Second, session: 10 * time.Second, rows: 100_000, interval: time.Second,
			budget: 128 << 20, log: slog.New(slog.DiscardHandler)})
		f.AwaitConsumed(b)
		b.StopTimer()
		took, used := time.Since(began), cpu()-before
		_ = stop()
		b.ReportMetric(float64(rows)/took.Seconds(), "rows/s")
		b.ReportMetric(float64(used.Nanoseconds())/1e3/rows, "cpu-us/row")
		b.StartTimer()
	}
}
