package consumers_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// publishThrough sends messages in order, per key, whatever happens to the broker meanwhile. An idempotent producer does
// not write them twice, as long as the broker remembers it.
func (f *fixture) publishThrough(t *testing.T, messages []model.Message) (wait func() error) {
	t.Helper()
	client := f.Producer(t, kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(500), kgo.RecordDeliveryTimeout(2*enginetest.Patience))
	records := make([]*kgo.Record, len(messages))
	for i := range messages {
		records[i] = f.recordOf(&messages[i])
	}
	done := make(chan error, 1)
	go func() { done <- client.ProduceSync(t.Context(), records...).FirstErr() }()
	return func() error { return <-done }
}

// committed is how many records the group has committed, of all partitions; -1 when the broker does not answer.
func (f *fixture) committed(t *testing.T) int64 {
	at := f.Positions(t)
	if len(at) != f.Partitions {
		return -1
	}
	var n int64
	for _, p := range at {
		n += max(0, p.Committed)
	}
	return n
}

func TestABrokerKilledUnderLoadCostsNothingButTime(t *testing.T) {
	t.Parallel()
	const count = 6000
	traffics := map[string]model.Config{
		// The embedded broker forgets its idempotent producers when it is killed, so messages may stand in the log
		// twice. Those with an effect of their own every time, dead letters, are left out.
		"embedded": {Seed: 31, Count: count, Resends: 0.05, Late: 0.05, LateSpan: 30 * 24 * time.Hour},
		"apache":   {Seed: 31, Count: count, Resends: 0.05, Late: 0.05, LateSpan: 30 * 24 * time.Hour, Malformed: 0.02, Conflicts: 0.005},
	}
	for name, start := range map[string]func(testing.TB, ...enginetest.Option) *engine.Kafka{
		"embedded": enginetest.Kafka, "apache": enginetest.ApacheKafka,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := start(t)
			f := newFixture(t, fixtureOptions{broker: broker, partitions: 4})
			messages, want := traffic(t, traffics[name])
			published := f.publishThrough(t, messages)
			f.Join(t, f.usage(t), kafkatest.Brisk)
			f.Join(t, f.usage(t), kafkatest.Brisk)
			for _, after := range []int64{count / 6, count / 2} {
				enginetest.Await(t, "some of it is consumed", func() bool { return f.committed(t) >= after })
				if err := broker.Kill(); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
				defer cancel()
				if err := broker.Start(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := published(); err != nil {
				t.Fatal(err)
			}
			f.AwaitConsumed(t)
			f.verify(t, want)
		})
	}
}
