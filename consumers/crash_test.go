package consumers_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/sinks/clickhouse"
)

// childEnv carries a crash as JSON: then the test binary is not a test but the service, which kills itself.
const childEnv = "USAGE_CRASH_CHILD"

// A crash is where a child kills itself.
type crash struct {
	Brokers    string
	Topic      string
	Group      string
	DSN        string
	Partitions int

	Step consumers.UsageStep // the border between steps
	Nth  int32               // the time it comes by; from 1
	Lost bool                // the first Nth inserts of the child succeed, but their answers are lost
}

// stepPart is a border inside an insert: the first of several months has landed.
const stepPart consumers.UsageStep = "part"

// crashTimes are short, so that a test may crash often. The session timeout is what it takes the group to give up on a
// killed member, the insert timeout what it takes to know that nothing of it is under way.
const (
	crashSession = 3 * time.Second
	crashInsert  = 2 * time.Second
)

func (c crash) run() error {
	step := enginetest.KillAt(c.Step, c.Nth)
	service := consumer{
		insertTimeout: crashInsert, session: crashSession, rows: 100, interval: 20 * time.Millisecond,
		onStep: step, onPart: func(int) { step(stepPart) },
	}
	if c.Lost {
		service.store = func(s consumers.UsageStore) consumers.UsageStore { return &lostAnswer{UsageStore: s, lose: c.Nth} }
	}
	options, err := chgo.ParseDSN(c.DSN)
	if err == nil {
		f := &fixture{Log: kafkatest.Log{Brokers: c.Brokers, Topic: c.Topic, Group: c.Group, Partitions: c.Partitions}, dsn: c.DSN}
		err = service.run(context.Background(), f, options)
	}
	return err
}

// lostAnswer is a store whose first inserts report that no answer came, although the rows landed.
type lostAnswer struct {
	consumers.UsageStore
	lose int32
	lost atomic.Int32
}

func (s *lostAnswer) Insert(ctx context.Context, in *clickhouse.Intent, b *clickhouse.Block, first, last int) error {
	err := s.UsageStore.Insert(ctx, in, b, first, last)
	if err == nil && s.lost.Add(1) <= s.lose {
		return &clickhouse.InsertError{Err: errors.New("the answer was lost"), Class: clickhouse.Transient, Outcome: clickhouse.Unknown}
	}
	return err
}

// crashAt runs a child until it has killed itself. It reports whether it did, or consumed everything before.
func (f *fixture) crashAt(t *testing.T, c crash) bool {
	t.Helper()
	return f.crashAtUnless(t, c, func() bool { return f.Consumed(t) })
}

// crashAtUnless is crashAt for a child that is killed in any place, and false returned, when done says so.
func (f *fixture) crashAtUnless(t *testing.T, c crash, done func() bool) bool {
	t.Helper()
	c.Brokers, c.Topic, c.Group, c.DSN, c.Partitions = f.Brokers, f.Topic, f.Group, f.dsn, f.Partitions
	return enginetest.StartChild(t, childEnv, c).UntilKilled(t, string(c.Step), done)
}

// crashes are the borders of the usage path, with what it takes to come by them.
func crashes() []crash {
	return []crash{
		{Step: consumers.StepFormed},
		{Step: consumers.StepChecked},
		{Step: consumers.StepDeadLettered},
		{Step: consumers.StepIntended},
		{Step: stepPart},
		{Step: consumers.StepInserted},
		{Step: consumers.StepUnknown, Lost: true},
		{Step: consumers.StepResending, Lost: true},
		{Step: consumers.StepSettled, Lost: true},
	}
}

func TestAKillAtAnyBorderOfTheUsagePathChangesNothing(t *testing.T) {
	t.Parallel()
	brokers := map[string]func(testing.TB) *engine.Kafka{"embedded": enginetest.SharedKafka, "apache": enginetest.SharedApacheKafka}
	for name, broker := range brokers {
		for _, c := range crashes() {
			t.Run(name+"/"+string(c.Step), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, fixtureOptions{broker: broker(t)})
				messages, want := traffic(t, model.Config{Seed: 7, Count: 1500, Resends: 0.1, Conflicts: 0.005, Late: 0.05, Malformed: 0.02})
				f.publish(t, messages)
				for _, nth := range []int32{1, 2} {
					c.Nth = nth
					if !f.crashAt(t, c) {
						t.Fatalf("the child never came to %s a %d. time", c.Step, nth)
					}
				}
				stop := f.start(t, consumer{insertTimeout: crashInsert, session: crashSession, rows: 100})
				f.AwaitConsumed(t)
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				f.verify(t, want)
			})
		}
	}
}

func TestKillsAtRandomBordersChangeNothing(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	f := newFixture(t, fixtureOptions{partitions: 3})
	messages, want := traffic(t, model.Config{Seed: seed, Count: 6000, Resends: 0.1, Conflicts: 0.01, Late: 0.1, Malformed: 0.02})
	f.publish(t, messages)
	all := crashes()
	for range 6 {
		c := all[random.IntN(len(all))]
		c.Nth = 1 + random.Int32N(4)
		c.Lost = c.Lost || random.IntN(3) == 0
		if !f.crashAt(t, c) {
			break
		}
	}
	stop := f.start(t, consumer{insertTimeout: crashInsert, session: crashSession, rows: 100})
	f.AwaitConsumed(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.verify(t, want)
}
