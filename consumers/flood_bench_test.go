package consumers_test

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
)

// countingWriter counts what is written to it.
type countingWriter struct{ bytes atomic.Int64 }

func (w *countingWriter) Write(b []byte) (int, error) {
	w.bytes.Add(int64(len(b)))
	return len(b), nil
}

// BenchmarkMalformedFlood reads 200,000 events in a row of which none can be decoded, at default settings, from Apache Kafka into the
// dead letters. An operation is all of them; look at letters/s, at the CPU time of this process for one, and at the size of the log.
func BenchmarkMalformedFlood(b *testing.B) {
	const count, partitions = 200_000, 8
	broker := enginetest.SharedApacheKafka(b)
	for b.Loop() {
		b.StopTimer()
		f := newFixture(b, fixtureOptions{broker: broker, partitions: partitions})
		records := make([]*kgo.Record, count)
		for i := range records {
			records[i] = &kgo.Record{Partition: int32(i % partitions), Key: []byte{byte(i), byte(i >> 8), byte(i >> 16)},
				Value: []byte(`{"specversion":"1.0","id":"broken","source":"/flood","type":"usage.recorded.v1","data":{"user_id":"u-1","company_id":`)}
		}
		f.Produce(b, records...)
		var log countingWriter
		before, began := cpu(), time.Now()
		b.StartTimer()
		stop := f.start(b, consumer{insertTimeout: 15 * time.Second, session: 10 * time.Second, rows: 100_000, interval: time.Second,
			budget: 128 << 20, log: slog.New(slog.NewJSONHandler(&log, nil))})
		f.AwaitConsumed(b)
		b.StopTimer()
		took, used := time.Since(began), cpu()-before
		if err := stop(); err != nil {
			b.Fatal(err)
		}
		letters := f.Letters(b)
		if letters[events.MalformedEnvelope] != count {
			b.Fatalf("the dead letters are %v", letters)
		}
		b.ReportMetric(count/took.Seconds(), "letters/s")
		b.ReportMetric(float64(used.Nanoseconds())/1e3/count, "cpu-us/letter")
		b.ReportMetric(float64(log.bytes.Load()), "log-bytes")
		b.StartTimer()
	}
}
