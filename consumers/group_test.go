package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/model"
)

// brisk makes a member notice rebalances, and the group notice its death, soon.
func brisk(c *consumers.Config) {
	c.SessionTimeout, c.RebalanceTimeout, c.Drain = 3*time.Second, 6*time.Second, 2*time.Second
	c.BatchRows = 300
}

func TestMembersThatComeAndGoUnderLoadLoseAndDoubleNothing(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newFixture(t, fixtureOptions{broker: broker, partitions: 6})
		const rounds, portion = 5, 1000
		messages, want := traffic(t, model.Config{Seed: 11, Count: rounds * portion, Resends: 0.05, Conflicts: 0.005, Late: 0.05, LateSpan: 30 * 24 * time.Hour,
			Malformed: 0.01, Structured: 0.1})
		stays := f.join(t, f.usage(t), brisk)
		for round := range rounds {
			f.publish(t, messages[round*portion:(round+1)*portion])
			guest := f.join(t, f.usage(t), brisk)
			eventually(t, "the guest gets partitions", 2*time.Minute, func() bool { return guest.partitions() > 0 })
			if err := guest.stop(); err != nil { // under load: the portion is not consumed yet, or just so
				t.Fatal(err)
			}
		}
		f.awaitConsumed(t, 2*time.Minute)
		if err := stays.stop(); err != nil {
			t.Fatal(err)
		}
		f.verify(t, want)
		if n := stays.metric(t, "tenantflow_rebalances_total", nil); n < rounds {
			t.Errorf("the member that stayed saw %v generations", n)
		}
	})
}

// generation is what a member of the group would commit with.
func (f *fixture) generation(t *testing.T) (*kafka.ConsumerGroup, *kafka.Generation) {
	t.Helper()
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{ID: f.group, Brokers: []string{f.brokers}, Topics: []string{f.topic},
		SessionTimeout: 3 * time.Second, RebalanceTimeout: 5 * time.Second, HeartbeatInterval: 200 * time.Millisecond, JoinGroupBackoff: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		gen, err := g.Next(ctx)
		if err == nil {
			return g, gen
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// This is what keeps a member that has lost its partitions without knowing from announcing an insert.
func TestTheBrokerRefusesACommitOfAnOldGeneration(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 1)
		f.produce(t, numbered(0, 10)...)
		commit := func(generation int32, member string, offset int64) error {
			t.Helper()
			res, err := f.client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{GroupID: f.group, GenerationID: int(generation), MemberID: member,
				Topics: map[string][]kafka.OffsetCommit{f.topic: {{Partition: 0, Offset: offset, Metadata: fmt.Sprint("by ", member)}}}})
			if err != nil {
				t.Fatal(err)
			}
			return res.Topics[f.topic][0].Error
		}
		one, first := f.generation(t)
		if err := commit(first.ID, first.MemberID, 3); err != nil {
			t.Fatalf("commit of the current generation: %v", err)
		}
		// All members rejoin, because a new one joins.
		joined := make(chan *kafka.Generation, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			for ctx.Err() == nil {
				if gen, err := one.Next(ctx); err == nil {
					joined <- gen
					return
				}
			}
		}()
		two, second := f.generation(t)
		again := <-joined
		if again.ID != second.ID || again.ID == first.ID {
			t.Fatalf("generations %d, then %d and %d", first.ID, again.ID, second.ID)
		}
		if err := commit(first.ID, again.MemberID, 7); !errors.Is(err, kafka.IllegalGeneration) {
			t.Errorf("commit of the old generation: %v, want %v", err, kafka.IllegalGeneration)
		}
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
		if err := commit(again.ID, again.MemberID, 8); !errors.Is(err, kafka.UnknownMemberId) {
			t.Errorf("commit of a member that is gone: %v, want %v", err, kafka.UnknownMemberId)
		}
		if err := commit(-1, "", 9); !errors.Is(err, kafka.UnknownMemberId) && !errors.Is(err, kafka.IllegalGeneration) {
			t.Errorf("commit without generation while the group has members: %v", err)
		}
		if at := f.positions(t)[0]; at.committed != 3 || at.metadata != "by "+first.MemberID {
			t.Errorf("the group stands at %+v, want the commit of the member that could", at)
		}
		if err := two.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAMemberThatStopsGivesItsPartitionsAwayAtOnce(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 4)
		// Heartbeats report a rebalance: every 3 s at most. The session would last far longer.
		patient := func(c *consumers.Config) {
			c.SessionTimeout, c.RebalanceTimeout, c.Drain = 60*time.Second, 60*time.Second, 5*time.Second
		}
		var taken journal
		one := f.join(t, consumers.EachEvent(&taken), patient)
		two := f.join(t, consumers.EachEvent(&taken), patient)
		eventually(t, "both have two partitions", 2*time.Minute, func() bool { return one.partitions() == 2 && two.partitions() == 2 })
		if err := one.stop(); err != nil {
			t.Fatalf("Run after a clean stop: %v", err)
		}
		eventually(t, "the other one has all", 40*time.Second, func() bool { return two.partitions() == 4 })
		if err := two.stop(); err != nil {
			t.Fatalf("Run after a clean stop: %v", err)
		}
	})
}

func TestWithoutABrokerTheConsumerKeepsTryingAndReadinessSaysWhy(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	f := newLog(t, enginetest.SharedKafka(t), 1)
	var taken journal
	m := f.join(t, consumers.EachEvent(&taken), func(c *consumers.Config) { c.Brokers = []string{nobody} })
	eventually(t, "readiness says why", 2*time.Minute, func() bool {
		r := m.report()
		return r.State == health.Failing && strings.Contains(r.Reason, f.group) && strings.Contains(r.Reason, nobody)
	})
	select {
	case <-m.ended:
		t.Fatalf("Run has given up: %v", m.result)
	default:
	}
	if err := m.stop(); err != nil { // which waits: one that never stops fails by the test's own time limit
		t.Errorf("Run after a stop: %v", err)
	}
}

// A wrong prefix, or a service that is started before its topics are made, must not look like one that has nothing to do.
func TestReadinessSaysThatTheTopicDoesNotExistUntilItDoes(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	f := newLog(t, broker, 1)
	f.topic += ".later"
	var taken journal
	m := f.join(t, consumers.EachEvent(&taken))
	eventually(t, "readiness says why", 2*time.Minute, func() bool {
		r := m.report()
		if r.State == health.Ready {
			t.Fatal("it is ready without a topic")
		}
		return r.State == health.Failing && strings.Contains(r.Reason, "topic "+f.topic+" does not exist")
	})
	enginetest.CreateTopic(t, broker, f.topic, 1)
	f.produce(t, numbered(0, 5)...)
	eventually(t, "the events are handled", 2*time.Minute, func() bool { return slices.Equal(taken.of(0), texts(numbered(0, 5))) })
	eventually(t, "it is ready", 2*time.Minute, func() bool { return m.report().State == health.Ready })
}

// A cluster that was just made has no coordinator for a while; a broker may also lose it at any time.
func TestTheFirstJoinOfANewClusterIsTriedUntilThereIsACoordinator(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events", "events.dlq"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	refusals := 3
	cluster.ControlKey(int16(kmsg.FindCoordinator), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if refusals == 0 {
			return nil, nil, false
		}
		refusals--
		cluster.KeepControl()
		res := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
		res.ErrorCode = kerr.CoordinatorNotAvailable.Code
		return res, nil, true
	})
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	address := cluster.ListenAddrs()[0]
	f := &fixture{brokers: address, topic: "events", group: "g", partitions: 1, client: &kafka.Client{Addr: kafka.TCP(address), Transport: transport}}
	f.produce(t, numbered(0, 5)...)
	var taken journal
	m := f.join(t, consumers.EachEvent(&taken))
	eventually(t, "readiness says what is missing", 2*time.Minute, func() bool { return strings.Contains(m.report().Reason, "Coordinator Not Available") })
	eventually(t, "the events are handled", 2*time.Minute, func() bool { return slices.Equal(taken.of(0), texts(numbered(0, 5))) })
	eventually(t, "it is ready", 2*time.Minute, func() bool { return m.report().State == health.Ready })
}

// It looks at all goroutines there are, so no other test may run beside it. Those that are parallel wait until the others
// are through.
func TestRunLeavesNoGoroutineBehind(t *testing.T) {
	broker := enginetest.SharedKafka(t)
	f := newLog(t, broker, 4)
	for p := range 4 {
		f.produce(t, numbered(p, 200)...)
	}
	f.client.Transport.(*kafka.Transport).CloseIdleConnections()
	before := goleak.IgnoreCurrent()
	var taken journal
	for range 3 {
		m := f.join(t, consumers.EachEvent(&taken))
		eventually(t, "it works", 2*time.Minute, func() bool { return m.partitions() == 4 && taken.count() >= 800 })
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

// failing refuses every record.
type failing struct{}

func (failing) Handle(context.Context, *events.Record) error { return errors.New("the store is away") }

func TestReadiness_LagGoesOnWhileAPartFails(t *testing.T) {
	t.Parallel()
	f := newLog(t, enginetest.SharedKafka(t), 1)
	m := f.join(t, consumers.EachEvent(failing{}))
	f.produce(t, numbered(0, 5)...)
	lagging := func(n int64) func() bool {
		return func() bool { r := m.report(); return r.State == health.Failing && r.Lag == n }
	}
	eventually(t, "the first events lag", time.Minute, lagging(5))
	f.produce(t, numbered(0, 7)...)
	eventually(t, "the others lag as well", time.Minute, lagging(12))
}
