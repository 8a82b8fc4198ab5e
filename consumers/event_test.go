package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
)

func numbered(partition, n int) []*kgo.Record {
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf("%d-%04d", partition, i))
	}
	return values(partition, texts...)
}

func texts(records []*kgo.Record) []string {
	var out []string
	for _, r := range records {
		out = append(out, string(r.Value))
	}
	return out
}

func TestEventsOfAPartitionAreHandledInTheirOrder(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 3)
	want := map[int][]*kgo.Record{}
	for p := range 3 {
		want[p] = numbered(p, 1500)
		f.produce(t, want[p]...)
	}
	var taken journal
	m := f.join(t, consumers.EachEvent(&taken))
	f.awaitConsumed(t, 2*time.Minute)
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	for p := range 3 {
		if got := taken.of(p); !slices.Equal(got, texts(want[p])) {
			t.Errorf("partition %d: %d events, want %d in the order of the log", p, len(got), len(want[p]))
		}
	}
}

func TestAnEventWhoseStoreIsAwayIsTriedAgainBeforeAnyOtherOfItsPartition(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 2)
	f.produce(t, slices.Concat(numbered(0, 20), numbered(1, 20))...)
	var taken journal
	var away atomic.Bool
	away.Store(true)
	var tries atomic.Int64
	m := f.join(t, consumers.EachEvent(eventFunc(func(ctx context.Context, r *events.Record) error {
		if string(r.Value) == "0-0007" && away.Load() {
			tries.Add(1)
			return errors.New("the store is away")
		}
		return taken.Handle(ctx, r)
	})))
	eventually(t, "the event is tried again", 2*time.Minute, func() bool { return tries.Load() >= 3 })
	eventually(t, "the other partition goes on", 2*time.Minute, func() bool { return len(taken.of(1)) == 20 })
	if got := taken.of(0); len(got) != 7 {
		t.Errorf("partition 0 has handled %v before the event that waits", got)
	}
	if r := m.report(); r.State != health.Failing || !strings.Contains(r.Reason, f.topic+"/0/7") || !strings.Contains(r.Reason, "the store is away") {
		t.Errorf("readiness says %s: %s", r.State, r.Reason)
	}
	away.Store(false)
	f.awaitConsumed(t, 2*time.Minute)
	eventually(t, "it is ready again", time.Minute, func() bool { return m.report().State == health.Ready })
	if got, want := taken.of(0), texts(numbered(0, 20)); !slices.Equal(got, want) {
		t.Errorf("handled %v", got)
	}
}

func TestARejectedEventIsADeadLetterAndTheNextOneIsHandled(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 1)
	f.produce(t, numbered(0, 5)...)
	var taken journal
	var tries atomic.Int64
	m := f.join(t, consumers.EachEvent(eventFunc(func(ctx context.Context, r *events.Record) error {
		switch {
		case string(r.Value) == "0-0002" && tries.Add(1) == 1:
			return errors.New("once more, please")
		case string(r.Value) == "0-0002":
			return fmt.Errorf("judge it: %w", events.Reject(events.TenantMismatch, "the user belongs to another company"))
		}
		return taken.Handle(ctx, r)
	})))
	f.awaitConsumed(t, 2*time.Minute)
	if got := taken.of(0); !slices.Equal(got, []string{"0-0000", "0-0001", "0-0003", "0-0004"}) {
		t.Errorf("handled %v", got)
	}
	var letters []*events.DeadLetter
	f.readAll(t, events.DeadLetterTopic(f.topic), func(r *events.Record) {
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
		l.Origin != (events.Origin{Group: f.group, Topic: f.topic, Partition: 0, Offset: 2}) || string(l.Value) != "0-0002" {
		t.Errorf("dead letter: %+v", l)
	}
	if n := m.metric(t, "tenantflow_dead_letters_total", map[string]string{"reason": "tenant_mismatch", "topic": f.topic}); n != 1 {
		t.Errorf("the metric counts %v dead letters", n)
	}
}

func TestAStopErrorStopsItsPartitionAndNoOther(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 2)
	f.produce(t, slices.Concat(numbered(0, 10), numbered(1, 10))...)
	var taken journal
	m := f.join(t, consumers.EachEvent(eventFunc(func(ctx context.Context, r *events.Record) error {
		if string(r.Value) == "0-0004" {
			return &consumers.StopError{Kind: "drained", Err: errors.New("the number of partitions has changed")}
		}
		return taken.Handle(ctx, r)
	})))
	stopped := map[string]string{"topic": f.topic, "partition": "0", "kind": "drained"}
	eventually(t, "the partition is stopped", 2*time.Minute, func() bool { return m.metric(t, "tenantflow_partition_stopped", stopped) == 1 })
	f.produce(t, values(1, "later")...)
	eventually(t, "the other partition goes on", 2*time.Minute, func() bool { return len(taken.of(1)) == 11 })
	eventually(t, "its offset is committed", 2*time.Minute, func() bool { return f.positions(t)[1].committed == 11 })
	if got := len(taken.of(0)); got != 4 {
		t.Errorf("%d events of the stopped partition were handled, want 4", got)
	}
	if at := f.positions(t)[0].committed; at > 4 {
		t.Errorf("offset %d of the stopped partition is committed", at)
	}
	if r := m.report(); r.State != health.Stopped || !strings.Contains(r.Reason, f.topic+"/0: the number of partitions has changed") {
		t.Errorf("readiness says %s: %s", r.State, r.Reason)
	}
	if err := m.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestAFatalErrorEndsTheConsumerWithThatError(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 2)
	f.produce(t, slices.Concat(numbered(0, 3), numbered(1, 3))...)
	cause := errors.New("the table is missing")
	m := f.join(t, consumers.EachEvent(eventFunc(func(_ context.Context, r *events.Record) error {
		if r.Partition == 1 && r.Offset == 1 {
			return &consumers.FatalError{Err: cause}
		}
		return nil
	})))
	select {
	case <-m.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("Run goes on")
	}
	var failure *consumers.FatalError
	if !errors.As(m.result, &failure) || !errors.Is(m.result, cause) {
		t.Errorf("Run returned %v", m.result)
	}
	// What was not handled is left to the next owner, after the configuration was corrected.
	if at := f.positions(t)[1].committed; at > 1 {
		t.Errorf("offset %d is committed, beyond the event that failed", at)
	}
	var taken journal
	f.join(t, consumers.EachEvent(&taken))
	f.awaitConsumed(t, 2*time.Minute)
	if got := taken.of(1); !slices.Contains(got, "1-0001") || !slices.Contains(got, "1-0002") {
		t.Errorf("after the mend, handled of partition 1: %v", got)
	}
}

// The owner here is as good as dead: it hangs in a handler that listens to nothing, so it neither commits nor leaves, and
// the group gives its partitions away when its session ends. (Processes that really die are in the crash tests.)
func TestAnEventComesAgainAfterItsOwnerDiedBeforeTheCommit(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 1)
	f.produce(t, numbered(0, 50)...)
	var mu sync.Mutex
	handled := map[string]int{}
	var first atomic.Int64
	hang := make(chan struct{})
	defer close(hang)
	handler := func(dies bool) consumers.BatchHandler {
		return consumers.EachEvent(eventFunc(func(_ context.Context, r *events.Record) error {
			if dies && first.Add(1) > 30 {
				<-hang // it is dead to the world: not even its context reaches it
				return errors.New("dead")
			}
			mu.Lock()
			defer mu.Unlock()
			handled[string(r.Value)]++
			return nil
		}))
	}
	dying := f.join(t, handler(true), func(c *consumers.Config) {
		c.SessionTimeout, c.RebalanceTimeout, c.Drain = 2*time.Second, 4*time.Second, time.Second
	})
	eventually(t, "30 events are handled", 2*time.Minute, func() bool { mu.Lock(); defer mu.Unlock(); return len(handled) == 30 })
	committed := max(0, f.positions(t)[0].committed)
	if committed > 30 {
		t.Fatalf("offset %d is committed before its events were handled", committed)
	}
	dying.cancel()
	f.join(t, handler(false))
	f.awaitConsumed(t, 2*time.Minute)
	mu.Lock()
	defer mu.Unlock()
	if len(handled) != 50 {
		t.Errorf("%d of 50 events were handled", len(handled))
	}
	again := int64(0)
	for _, n := range handled {
		if n > 1 {
			again++
		}
	}
	if again != 30-committed {
		t.Errorf("%d events came again, want the %d that were handled and not committed", again, 30-committed)
	}
}
