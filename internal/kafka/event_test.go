package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

func TestEventsOfAPartitionAreHandledInTheirOrder(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 3)
	want := map[int][]*kgo.Record{}
	for p := range 3 {
		want[p] = kafkatest.Numbered(p, 1500)
		f.Produce(t, want[p]...)
	}
	var taken kafkatest.Journal
	m := f.Join(t, kafkatest.EachEvent(&taken))
	f.AwaitConsumed(t)
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	for p := range 3 {
		if got := taken.Of(p); !slices.Equal(got, kafkatest.Texts(want[p])) {
			t.Errorf("partition %d: %d events, want %d in the order of the log", p, len(got), len(want[p]))
		}
	}
}

func TestAnEventWhoseStoreIsAwayIsTriedAgainBeforeAnyOtherOfItsPartition(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 2)
	f.Produce(t, slices.Concat(kafkatest.Numbered(0, 20), kafkatest.Numbered(1, 20))...)
	var taken kafkatest.Journal
	var away atomic.Bool
	away.Store(true)
	var tries atomic.Int64
	m := f.Join(t, kafkatest.EachEvent(kafkatest.EventFunc(func(ctx context.Context, r *events.Record) error {
		if string(r.Value) == "0-0007" && away.Load() {
			tries.Add(1)
			return errors.New("the store is away")
		}
		return taken.Handle(ctx, r)
	})))
	enginetest.Await(t, "the event is tried again", func() bool { return tries.Load() >= 3 })
	enginetest.Await(t, "the other partition goes on", func() bool { return len(taken.Of(1)) == 20 })
	if got := taken.Of(0); len(got) != 7 {
		t.Errorf("partition 0 has handled %v before the event that waits", got)
	}
	if r := m.Report(); r.State != health.Failing || !strings.Contains(r.Reason, f.Topic+"/0/7") || !strings.Contains(r.Reason, "the store is away") {
		t.Errorf("readiness says %s: %s", r.State, r.Reason)
	}
	away.Store(false)
	f.AwaitConsumed(t)
	enginetest.Await(t, "it is ready again", func() bool { return m.Report().State == health.Ready })
	if got, want := taken.Of(0), kafkatest.Texts(kafkatest.Numbered(0, 20)); !slices.Equal(got, want) {
		t.Errorf("handled %v", got)
	}
}

func TestARejectedEventIsADeadLetterAndTheNextOneIsHandled(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 1)
	f.Produce(t, kafkatest.Numbered(0, 5)...)
	var taken kafkatest.Journal
	var tries atomic.Int64
	m := f.Join(t, kafkatest.EachEvent(kafkatest.EventFunc(func(ctx context.Context, r *events.Record) error {
		switch {
		case string(r.Value) == "0-0002" && tries.Add(1) == 1:
			return errors.New("once more, please")
		case string(r.Value) == "0-0002":
			return fmt.Errorf("judge it: %w", events.Reject(events.TenantMismatch, "the user belongs to another company"))
		}
		return taken.Handle(ctx, r)
	})))
	f.AwaitConsumed(t)
	if got := taken.Of(0); !slices.Equal(got, []string{"0-0000", "0-0001", "0-0003", "0-0004"}) {
		t.Errorf("handled %v", got)
	}
	var letters []*events.DeadLetter
	f.ReadAll(t, events.DeadLetterTopic(f.Topic), func(r *events.Record) {
		l, err := events.ParseDeadLetter(r)
		if err != nil {
			t.Fatal(err)
		}
		letters = append(letters, l)
	})
	if len(letters) != 1 {
		t.Fatalf("%d dead letters, want 1", len(letters))
	}
	l := letters[0]
	if l.Reason != events.TenantMismatch || l.Detail != "the user belongs to another company" || l.Attempts != 2 ||
		l.Origin != (events.Origin{Group: f.Group, Topic: f.Topic, Partition: 0, Offset: 2}) || string(l.Value) != "0-0002" {
		t.Errorf("dead letter: %+v", l)
	}
	if n := m.Metric(t, "tenantflow_dead_letters_total", map[string]string{"reason": "tenant_mismatch", "topic": f.Topic}); n != 1 {
		t.Errorf("the metric counts %v dead letters", n)
	}
}

func TestAStopErrorStopsItsPartitionAndNoOther(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 2)
	f.Produce(t, slices.Concat(kafkatest.Numbered(0, 10), kafkatest.Numbered(1, 10))...)
	var taken kafkatest.Journal
	m := f.Join(t, kafkatest.EachEvent(kafkatest.EventFunc(func(ctx context.Context, r *events.Record) error {
		if string(r.Value) == "0-0004" {
			return &kafka.StopError{Kind: "drained", Err: errors.New("the number of partitions has changed")}
		}
		return taken.Handle(ctx, r)
	})))
	stopped := map[string]string{"topic": f.Topic, "partition": "0", "kind": "drained"}
	enginetest.Await(t, "the partition is stopped", func() bool { return m.Metric(t, "tenantflow_partition_stopped", stopped) == 1 })
	f.Produce(t, kafkatest.Values(1, "later")...)
	enginetest.Await(t, "the other partition goes on", func() bool { return len(taken.Of(1)) == 11 })
	enginetest.Await(t, "its offset is committed", func() bool { return f.Positions(t)[1].Committed == 11 })
	if got := len(taken.Of(0)); got != 4 {
		t.Errorf("%d events of the stopped partition were handled, want 4", got)
	}
	if at := f.Positions(t)[0].Committed; at > 4 {
		t.Errorf("offset %d of the stopped partition is committed", at)
	}
	if r := m.Report(); r.State != health.Stopped || !strings.Contains(r.Reason, f.Topic+"/0: the number of partitions has changed") {
		t.Errorf("readiness says %s: %s", r.State, r.Reason)
	}
	if err := m.Stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestAFatalErrorEndsTheConsumerWithThatError(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 2)
	f.Produce(t, slices.Concat(kafkatest.Numbered(0, 3), kafkatest.Numbered(1, 3))...)
	cause := errors.New("the table is missing")
	m := f.Join(t, kafkatest.EachEvent(kafkatest.EventFunc(func(_ context.Context, r *events.Record) error {
		if r.Partition == 1 && r.Offset == 1 {
			return &kafka.FatalError{Err: cause}
		}
		return nil
	})))
	kafkatest.Await(t, "Run to end", m.Ended)
	var failure *kafka.FatalError
	if !errors.As(m.Result, &failure) || !errors.Is(m.Result, cause) {
		t.Errorf("Run returned %v", m.Result)
	}
	// What was not handled is left to the next owner, after the configuration was corrected.
	if at := f.Positions(t)[1].Committed; at > 1 {
		t.Errorf("offset %d is committed, beyond the event that failed", at)
	}
	var taken kafkatest.Journal
	f.Join(t, kafkatest.EachEvent(&taken))
	f.AwaitConsumed(t)
	if got := taken.Of(1); !slices.Contains(got, "1-0001") || !slices.Contains(got, "1-0002") {
		t.Errorf("after the mend, handled of partition 1: %v", got)
	}
}

// The owner here is as good as dead: it hangs in a handler that listens to nothing, so it neither commits nor leaves, and
// the group gives its partitions away when its session ends. (Processes that really die are in the crash tests.)
func TestAnEventComesAgainAfterItsOwnerDiedBeforeTheCommit(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 1)
	f.Produce(t, kafkatest.Numbered(0, 50)...)
	var mu sync.Mutex
	before, after := map[int64]bool{}, map[int64]bool{} // the offsets that each has handled
	hang := make(chan struct{})
	defer close(hang)
	handler := func(handled map[int64]bool, most int64) kafka.BatchHandler {
		return kafkatest.EachEvent(kafkatest.EventFunc(func(_ context.Context, r *events.Record) error {
			if r.Offset >= most {
				<-hang // it is dead to the world: not even its context reaches it
				return errors.New("dead")
			}
			mu.Lock()
			defer mu.Unlock()
			handled[r.Offset] = true
			return nil
		}))
	}
	dying := f.Join(t, handler(before, 30), func(c *kafka.Config) {
		c.SessionTimeout, c.RebalanceTimeout, c.Drain = 2*time.Second, 4*time.Second, time.Second
	})
	enginetest.Await(t, "30 events are handled", func() bool { mu.Lock(); defer mu.Unlock(); return len(before) == 30 })
	committed := max(0, f.Positions(t)[0].Committed)
	if committed > 30 {
		t.Fatalf("offset %d is committed before its events were handled", committed)
	}
	dying.Cancel()
	f.Join(t, handler(after, 50))
	f.AwaitConsumed(t)
	mu.Lock()
	defer mu.Unlock()
	// It may have committed a little more before it was given up.
	first := slices.Min(slices.Collect(maps.Keys(after)))
	if first < committed || first > 30 {
		t.Errorf("its heir began at offset %d, want one from %d, which was committed, to 30, up to which events were handled", first, committed)
	}
	if n := int64(len(after)); n != 50-first {
		t.Errorf("its heir has handled %d events from offset %d, want %d", n, first, 50-first)
	}
}
