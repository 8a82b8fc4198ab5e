package consumers_test

import (
	"testing"
	"time"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
)

// BenchmarkQuotaBacklog counts 500,000 events of 10,000 users from a backlog on Apache Kafka into a Redis that writes
// nothing to disk. One operation is the whole backlog.
func BenchmarkQuotaBacklog(b *testing.B) {
	broker := enginetest.SharedApacheKafka(b)
	for b.Loop() {
		b.StopTimer()
		f := newQuotaFixture(b, fixtureOptions{broker: broker, partitions: 8}, enginetest.Persist(engine.Forgetful))
		const count = 500_000
		g, err := model.New(model.Config{Seed: 3, Count: count, Start: time.Now().Add(-10 * time.Minute), Step: time.Millisecond})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := model.Publish(b.Context(), g, model.Publishing{Client: f.Client, Topic: f.Topic}); err != nil {
			b.Fatal(err)
		}
		f.know(g.Expected(), 1000)
		want := expected(g.Expected())
		before := cpu()
		b.StartTimer()
		began := time.Now()
		stop := f.count(b, quotaConsumer{rows: 20_000})
		enginetest.Await(b, "the backlog to be counted", func() bool {
			got, err := f.used(b.Context())
			return err == nil && len(got.differ(want)) == 0
		})
		b.ReportMetric(count/time.Since(began).Seconds(), "events/s")
		b.ReportMetric(float64((cpu()-before).Microseconds())/count, "cpu-us/event")
		b.StopTimer()
		if err := stop(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
