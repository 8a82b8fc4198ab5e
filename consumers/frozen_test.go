package consumers_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// frozenEnv carries a frozen as JSON: then the test binary is the service, which stops itself once.
const frozenEnv = "USAGE_FROZEN_CHILD"

// frozen is where a child stops itself with SIGSTOP: everything in it stands still in the midst of a step, its connections
// open, until the test wakes it.
type frozen struct {
	Brokers, Topic, Group, DSN string
	Partitions                 int
	Step                       consumers.UsageStep
	Nth                        int32 // the time it comes by; from 1
	Deaf                       bool  // it does not hear that a commit is refused
}

// The woken member finds both its session and the deadline of its insert over.
const (
	frozenSession = 2 * time.Second
	frozenInsert  = 1500 * time.Millisecond
)

func (c frozen) run() error {
	options, err := chgo.ParseDSN(c.DSN)
	if err != nil {
		return err
	}
	var count atomic.Int32
	service := consumer{
		insertTimeout: frozenInsert, session: frozenSession, rows: 100, interval: 20 * time.Millisecond,
		onStep: func(s consumers.UsageStep) {
			if s == c.Step && count.Add(1) == c.Nth {
				_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
				<-time.After(200 * time.Millisecond) // the signal is on its way; nothing more must happen before
			}
		},
	}
	if c.Deaf {
		service.dial = dialDeaf
		service.store = func(s consumers.UsageStore) consumers.UsageStore { return fresh{s} }
		// It drains for three quarters of its session, and must get through with its insert in that time, on a busy machine as well.
		service.session, service.insertTimeout = 10*frozenSession, 10*frozenSession
	}
	f := &fixture{Log: kafkatest.Log{Brokers: c.Brokers, Topic: c.Topic, Group: c.Group, Partitions: c.Partitions}, dsn: c.DSN}
	return service.run(context.Background(), f, options)
}

// startFrozen starts such a child. It is killed at the test's end.
func (f *fixture) startFrozen(t *testing.T, c frozen) *os.Process {
	t.Helper()
	c.Brokers, c.Topic, c.Group, c.DSN, c.Partitions = f.Brokers, f.Topic, f.Group, f.dsn, f.Partitions
	return enginetest.StartChild(t, frozenEnv, c).Process()
}

// standsStill reports whether a process is stopped by a signal.
func standsStill(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, fields, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(fields, "T")
}

// members is how many members the broker counts in the group, when it is stable.
func (f *fixture) members(t *testing.T) int {
	t.Helper()
	res, err := f.Client.DescribeGroups(t.Context(), &kafkago.DescribeGroupsRequest{GroupIDs: []string{f.Group}})
	if err != nil || len(res.Groups) != 1 || res.Groups[0].GroupState != "Stable" {
		return 0
	}
	return len(res.Groups[0].Members)
}

// The member is stopped right before it announces an insert; between the announcement and the insert; and after the
// insert, before its offset is committed. Another member takes over, settles, and goes on. When the first one wakes up,
// it still believes in its partitions.
func TestAMemberFrozenPastItsSessionDoublesNothingAndComesBack(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for _, step := range []consumers.UsageStep{consumers.StepDeadLettered, consumers.StepIntended, consumers.StepInserted} {
			t.Run(string(step), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, fixtureOptions{broker: broker, partitions: 2})
				const half = 1000
				messages, want := traffic(t, model.Config{Seed: 21, Count: 2 * half, Resends: 0.05, Conflicts: 0.005, Late: 0.05, LateSpan: 30 * 24 * time.Hour, Malformed: 0.01})
				f.publish(t, messages[:half])
				sleeper := f.startFrozen(t, frozen{Step: step, Nth: 3})
				enginetest.Await(t, "the child stands still", func() bool { return standsStill(sleeper.Pid) })
				heir := f.Join(t, f.usage(t), kafkatest.Brisk)
				enginetest.Await(t, "the other member has all partitions", func() bool { return heir.Partitions() == 2 })
				f.AwaitConsumed(t)

				if err := sleeper.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				enginetest.Await(t, "the woken member is back in the group", func() bool { return f.members(t) == 2 && heir.Partitions() == 1 })
				f.publish(t, messages[half:])
				f.AwaitConsumed(t)
				f.verify(t, want)
			})
		}
	})
}
