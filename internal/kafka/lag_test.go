package kafka_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// appended is when a record was appended, by the clock of the test: between two moments.
type appended struct{ from, to time.Time }

func (a appended) age() time.Duration { return time.Since(a.from) }

// produce appends one record to a partition.
func produce(t *testing.T, f *kafkatest.Log, partition int, value string) appended {
	t.Helper()
	from := time.Now()
	f.Produce(t, kafkatest.Values(partition, value)...)
	return appended{from, time.Now()}
}

// lagSeconds is the age that a member shows of the oldest record without effect.
func lagSeconds(t *testing.T, m *kafkatest.Member, partition int) (time.Duration, bool) {
	t.Helper()
	seconds, there := m.Sample(t, "tenantflow_partition_lag_seconds", map[string]string{"partition": strconv.Itoa(partition)})
	return time.Duration(seconds * float64(time.Second)), there
}

// wantAge follows the age that a member shows until the record is so old, and holds each value against the clock.
func wantAge(t *testing.T, f *kafkatest.Log, m *kafkatest.Member, partition int, record appended, until time.Duration) {
	t.Helper()
	const exact = time.Second
	seen, wrong := 0, 0
	enginetest.Await(t, "the age is shown", func() bool {
		least := time.Since(record.to)
		got, there := lagSeconds(t, m, partition)
		most := time.Since(record.from)
		switch {
		case !there && seen == 0:
			return false // not yet
		case there && got >= least-exact && got <= most+exact:
			wrong = 0
		default:
			// A reader that a busy machine, or its broker, does not let go on has not seen the record yet, and that there was none before is
			// not known for long. It gets as long as the broker takes for twenty requests.
			if f.Positions(t); wrong < 20 {
				wrong++
				return false
			}
			t.Errorf("partition %d shows an age of %s (it is there: %t), want %s to %s", partition, got, there, least, most)
		}
		seen++
		return record.age() >= until || t.Failed()
	})
}

// wantNoLag waits until a member shows that a partition has no lag.
func wantNoLag(t *testing.T, m *kafkatest.Member, partition int) {
	t.Helper()
	enginetest.Await(t, "the partition is caught up", func() bool {
		got, there := lagSeconds(t, m, partition)
		return there && got == 0
	})
}

var brokersTime = kafkago.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"} //nolint:gochecknoglobals // a constant

func TestLagSeconds_IsTheAgeOfTheOldestRecordWithoutEffect(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 3, brokersTime)
		var away atomic.Bool
		handler := kafkatest.EachEvent(kafkatest.EventFunc(func(_ context.Context, r *events.Record) error {
			switch {
			case string(r.Value) == "stop":
				return &kafka.StopError{Kind: "drained", Err: errors.New("it is to stop")}
			case away.Load():
				return errors.New("the store is away")
			}
			return nil
		}))
		m := f.Join(t, handler)
		for p := range f.Partitions {
			wantNoLag(t, m, p) // of an empty log
		}
		away.Store(true)
		oldest := produce(t, f, 0, "waits")
		wantAge(t, f, m, 0, oldest, 2*time.Second)
		produce(t, f, 0, "waits behind it")
		wantAge(t, f, m, 0, oldest, 4*time.Second)
		wantNoLag(t, m, 1)

		// The service is down, and comes back.
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		m = f.Join(t, handler)
		wantAge(t, f, m, 0, oldest, oldest.age()+2*time.Second)
		away.Store(false)
		wantNoLag(t, m, 0)

		// A partition that is stopped goes on ageing, and another one is not concerned.
		stopped := produce(t, f, 1, "stop")
		wantAge(t, f, m, 1, stopped, 3*time.Second)
		wantNoLag(t, m, 0)
	})
}

// hanging is a handler whose partitions don't open: it waits for what an earlier owner has left in a store that does not answer.
type hanging struct{ opened chan struct{} }

func (h hanging) Open(ctx context.Context, _ *kafka.Partition) (kafka.BatchPartition, error) {
	select {
	case h.opened <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestLagSeconds_IsKnownBeforeAnythingIsRead(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 2, brokersTime)
		first := produce(t, f, 0, "waits")
		m := f.Join(t, hanging{make(chan struct{}, 1)})
		wantAge(t, f, m, 0, first, 3*time.Second)
		wantNoLag(t, m, 1)
		late := produce(t, f, 1, "comes while it hangs")
		wantAge(t, f, m, 1, late, 3*time.Second)
	})
}

func TestLagSeconds_OfATrimmedLogIsThatOfWhatIsLeft(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1, brokersTime)
		f.Produce(t, kafkatest.Values(0, "a", "b", "c")...)
		gone := produce(t, f, 0, "d")
		f.CommitOutside(t, map[int]int64{0: 1})
		enginetest.Await(t, "the next record is clearly younger", func() bool { return gone.age() > 2500*time.Millisecond })
		left := produce(t, f, 0, "e")
		f.Truncate(t, 0, 4)
		m := f.Join(t, kafkatest.EachEvent(failing{}))
		enginetest.Await(t, "the partition is stopped", func() bool {
			return m.Metric(t, "tenantflow_partition_stopped", map[string]string{"kind": "offset_out_of_range"}) == 1
		})
		wantAge(t, f, m, 0, left, left.age()+2*time.Second)
		f.Truncate(t, 0, 5)
		wantNoLag(t, m, 0)
	})
}

func TestLagSeconds_CountsAnOpenTransactionAndNoAbortedOne(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1, brokersTime)
		handler := kafkatest.EachEvent(new(kafkatest.Journal))
		m := f.Join(t, handler)
		wantNoLag(t, m, 0)
		begun := appended{from: time.Now()}
		open := f.OpenTransaction(t)
		begun.to = time.Now()
		enginetest.Await(t, "the transaction holds the partition back", func() bool {
			got, there := lagSeconds(t, m, 0)
			return there && got > 0
		})
		wantAge(t, f, m, 0, begun, 3*time.Second)
		f.Produce(t, kafkatest.Values(0, "behind it")...)
		wantAge(t, f, m, 0, begun, 4*time.Second)
		// Another process finds it open.
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		m = f.Join(t, handler)
		wantAge(t, f, m, 0, begun, begun.age()+2*time.Second)
		if err := open.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		wantNoLag(t, m, 0)
	})
}

// The budget is held by one partition whose store does not answer, so the others can't read: what comes there ages all the same.
func TestLagSeconds_OfAPartitionThatWaitsForMemory(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 2, brokersTime)
	budget := kafka.NewBudget(2 << 20)
	m := f.Join(t, kafkatest.EachEvent(failing{}), func(c *kafka.Config) { c.Budget, c.BatchRows = budget, 1_000_000 })
	wantNoLag(t, m, 1)
	value := string(make([]byte, 100<<10))
	for range 40 {
		f.Produce(t, kafkatest.Values(0, value)...)
	}
	enginetest.Await(t, "the lag of the first partition is known", func() bool {
		got, there := lagSeconds(t, m, 0)
		return there && got > 0
	})
	wantAge(t, f, m, 1, produce(t, f, 1, "waits"), 4*time.Second)
}

func TestLagSeconds_FallsWhileABacklogIsConsumed(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 1) // the producer's times, which the test chooses
	now := time.Now()
	records := kafkatest.Numbered(0, 2000)
	for i, r := range records {
		r.Timestamp = now.Add(-time.Hour + time.Duration(i)*time.Second)
	}
	records[1999].Timestamp = now.Add(time.Hour)
	f.Produce(t, records...)
	var handled atomic.Int64
	step := make(chan struct{})
	m := f.Join(t, kafkatest.EachEvent(kafkatest.EventFunc(func(ctx context.Context, _ *events.Record) error {
		if handled.Load()%200 == 0 {
			select {
			case <-step:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		handled.Add(1)
		return nil
	})), func(c *kafka.Config) { c.BatchRows = 200 })
	for batch := range 10 {
		at := appended{records[batch*200].Timestamp, records[batch*200].Timestamp}
		enginetest.Await(t, "the age is that of the batch", func() bool {
			got, there := lagSeconds(t, m, 0)
			return there && got > at.age()-time.Second && got < at.age()+time.Second
		})
		select {
		case step <- struct{}{}:
		case <-time.After(enginetest.Patience):
			t.Fatal("the next batch never began")
		}
	}
	f.AwaitConsumed(t)
	wantNoLag(t, m, 0)
}
