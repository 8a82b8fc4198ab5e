package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// generation is what a member of the group would commit with.
func generation(t *testing.T, f *kafkatest.Log) (*kafkago.ConsumerGroup, *kafkago.Generation) {
	t.Helper()
	g, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{ID: f.Group, Brokers: []string{f.Brokers}, Topics: []string{f.Topic},
		SessionTimeout: 45 * time.Second, RebalanceTimeout: 90 * time.Second, HeartbeatInterval: 200 * time.Millisecond, JoinGroupBackoff: 100 * time.Millisecond,
		Timeout: enginetest.Patience}) // a heartbeat that is answered late must not end a generation
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
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
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		f.Produce(t, kafkatest.Numbered(0, 10)...)
		commit := func(generation int32, member string, offset int64) error {
			t.Helper()
			res, err := f.Client.OffsetCommit(t.Context(), &kafkago.OffsetCommitRequest{GroupID: f.Group, GenerationID: int(generation), MemberID: member,
				Topics: map[string][]kafkago.OffsetCommit{f.Topic: {{Partition: 0, Offset: offset, Metadata: fmt.Sprint("by ", member)}}}})
			if err != nil {
				t.Fatal(err)
			}
			return res.Topics[f.Topic][0].Error
		}
		one, first := generation(t, f)
		if err := commit(first.ID, first.MemberID, 3); err != nil {
			t.Fatalf("commit of the current generation: %v", err)
		}
		// All members rejoin, because a new one joins.
		joined := make(chan *kafkago.Generation, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), enginetest.Patience)
			defer cancel()
			for ctx.Err() == nil {
				if gen, err := one.Next(ctx); err == nil {
					joined <- gen
					return
				}
			}
		}()
		two, second := generation(t, f)
		again := kafkatest.Await(t, "the first member to be in the new generation", joined)
		if again.ID != second.ID || again.ID == first.ID {
			t.Fatalf("generations %d, then %d and %d", first.ID, again.ID, second.ID)
		}
		if err := commit(first.ID, again.MemberID, 7); !errors.Is(err, kafkago.IllegalGeneration) {
			t.Errorf("commit of the old generation: %v, want %v", err, kafkago.IllegalGeneration)
		}
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
		if err := commit(again.ID, again.MemberID, 8); !errors.Is(err, kafkago.UnknownMemberId) {
			t.Errorf("commit of a member that is gone: %v, want %v", err, kafkago.UnknownMemberId)
		}
		if err := commit(-1, "", 9); !errors.Is(err, kafkago.UnknownMemberId) && !errors.Is(err, kafkago.IllegalGeneration) {
			t.Errorf("commit without generation while the group has members: %v", err)
		}
		if at := f.Positions(t)[0]; at.Committed != 3 || at.Metadata != "by "+first.MemberID {
			t.Errorf("the group stands at %+v, want the commit of the member that could", at)
		}
		if err := two.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// longSession is about as long as the embedded broker allows. What does not wait for its end is over when half of it is, on any machine.
const longSession = 4 * time.Minute

func TestAMemberThatStopsGivesItsPartitionsAwayAtOnce(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 4)
		// Heartbeats report a rebalance: every 3 s at most. The session would last far longer.
		patient := func(c *kafka.Config) {
			c.SessionTimeout, c.RebalanceTimeout, c.Drain = longSession, longSession, 5*time.Second
		}
		var taken kafkatest.Journal
		one := f.Join(t, kafkatest.EachEvent(&taken), patient)
		two := f.Join(t, kafkatest.EachEvent(&taken), patient)
		enginetest.Await(t, "both have two partitions", func() bool { return one.Partitions() == 2 && two.Partitions() == 2 })
		if err := one.Stop(); err != nil {
			t.Fatalf("Run after a clean stop: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), longSession/2)
		defer cancel()
		if err := enginetest.Eventually(ctx, func() bool { return two.Partitions() == 4 }); err != nil {
			t.Fatalf("the other one has %d partitions, want all: %v", two.Partitions(), err)
		}
		if err := two.Stop(); err != nil {
			t.Fatalf("Run after a clean stop: %v", err)
		}
	})
}

func TestWithoutABrokerTheConsumerKeepsTryingAndReadinessSaysWhy(t *testing.T) {
	t.Parallel()
	closed := enginetest.ClosedAddress(t)
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 1)
	var taken kafkatest.Journal
	m := f.Join(t, kafkatest.EachEvent(&taken), func(c *kafka.Config) { c.Brokers = []string{closed} })
	enginetest.Await(t, "readiness says why", func() bool {
		r := m.Report()
		return r.State == health.Failing && strings.Contains(r.Reason, f.Group) && strings.Contains(r.Reason, closed)
	})
	select {
	case <-m.Ended:
		t.Fatalf("Run has given up: %v", m.Result)
	default:
	}
	if err := m.Stop(); err != nil { // which waits: one that never stops fails by the test's own time limit
		t.Errorf("Run after a stop: %v", err)
	}
}

// A wrong prefix, or a service that is started before its topics are made, must not look like one that has nothing to do.
func TestReadinessSaysThatTheTopicDoesNotExistUntilItDoes(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	f := kafkatest.NewLog(t, broker, 1)
	f.Topic += ".later"
	var taken kafkatest.Journal
	m := f.Join(t, kafkatest.EachEvent(&taken))
	enginetest.Await(t, "readiness says why", func() bool {
		r := m.Report()
		if r.State == health.Ready {
			t.Fatal("it is ready without a topic")
		}
		return r.State == health.Failing && strings.Contains(r.Reason, "topic "+f.Topic+" does not exist")
	})
	enginetest.CreateTopic(t, broker, f.Topic, 1)
	f.Produce(t, kafkatest.Numbered(0, 5)...)
	enginetest.Await(t, "the events are handled", func() bool { return slices.Equal(taken.Of(0), kafkatest.Texts(kafkatest.Numbered(0, 5))) })
	enginetest.Await(t, "it is ready", func() bool { return m.Report().State == health.Ready })
}

// A cluster that was just made has no coordinator for a while; a broker may also lose it at any time.
func TestTheFirstJoinOfANewClusterIsTriedUntilThereIsACoordinator(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events", "events.dlq"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	var seen atomic.Bool // that readiness says it
	cluster.ControlKey(int16(kmsg.FindCoordinator), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if seen.Load() {
			return nil, nil, false
		}
		cluster.KeepControl()
		res := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
		res.ErrorCode = kerr.CoordinatorNotAvailable.Code
		return res, nil, true
	})
	transport := &kafkago.Transport{DialTimeout: enginetest.Patience}
	t.Cleanup(transport.CloseIdleConnections)
	address := cluster.ListenAddrs()[0]
	f := &kafkatest.Log{Brokers: address, Topic: "events", Group: "g", Partitions: 1, Client: &kafkago.Client{Addr: kafkago.TCP(address), Transport: transport}}
	f.Produce(t, kafkatest.Numbered(0, 5)...)
	var taken kafkatest.Journal
	m := f.Join(t, kafkatest.EachEvent(&taken))
	enginetest.Await(t, "readiness says what is missing", func() bool { return strings.Contains(m.Report().Reason, "Coordinator Not Available") })
	seen.Store(true)
	enginetest.Await(t, "the events are handled", func() bool { return slices.Equal(taken.Of(0), kafkatest.Texts(kafkatest.Numbered(0, 5))) })
	enginetest.Await(t, "it is ready", func() bool { return m.Report().State == health.Ready })
}

// It looks at all goroutines there are, so no other test may run beside it. Those that are parallel wait until the others
// are through.
func TestRunLeavesNoGoroutineBehind(t *testing.T) {
	broker := enginetest.SharedKafka(t)
	f := kafkatest.NewLog(t, broker, 4)
	for p := range 4 {
		f.Produce(t, kafkatest.Numbered(p, 200)...)
	}
	f.Client.Transport.(*kafkago.Transport).CloseIdleConnections()
	before := goleak.IgnoreCurrent()
	var taken kafkatest.Journal
	for range 3 {
		m := f.Join(t, kafkatest.EachEvent(&taken))
		enginetest.Await(t, "it works", func() bool { return m.Partitions() == 4 && taken.Count() >= 800 })
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	var left error
	if enginetest.Eventually(ctx, func() bool { left = goleak.Find(before); return left == nil }) != nil {
		t.Error(left)
	}
}

// failing refuses every record.
type failing struct{}

func (failing) Handle(context.Context, *events.Record) error { return errors.New("the store is away") }

func TestReadiness_LagGoesOnWhileAPartFails(t *testing.T) {
	t.Parallel()
	f := kafkatest.NewLog(t, enginetest.SharedKafka(t), 1)
	m := f.Join(t, kafkatest.EachEvent(failing{}))
	f.Produce(t, kafkatest.Numbered(0, 5)...)
	lagging := func(n int64) func() bool {
		return func() bool { r := m.Report(); return r.State == health.Failing && r.Lag == n }
	}
	enginetest.Await(t, "the first events lag", lagging(5))
	f.Produce(t, kafkatest.Numbered(0, 7)...)
	enginetest.Await(t, "the others lag as well", lagging(12))
}
