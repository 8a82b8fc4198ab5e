package consumers_test

import (
	"context"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
)

// A process that stops in the middle of a rebalance does not wait for a member that does not answer any more.
func TestGroup_StopInterruptsAJoin(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for _, first := range []bool{true, false} {
			f := newLog(t, broker, 2)
			patient := func(c *consumers.Config) {
				c.SessionTimeout, c.RebalanceTimeout, c.Drain = 60*time.Second, 60*time.Second, 5*time.Second
			}
			var taken journal
			var m *member
			if !first {
				m = f.join(t, consumers.EachEvent(&taken), patient)
				eventually(t, "it has the partitions", time.Minute, func() bool { return m.partitions() == 2 })
			}
			f.joinAndFreeze(t)
			if first {
				m = f.join(t, consumers.EachEvent(&taken), patient)
			} else {
				eventually(t, "it has lost one", time.Minute, func() bool { return m.partitions() == 1 })
				third := f.join(t, consumers.EachEvent(&taken), patient)
				defer func() { _ = third.stop() }()
			}
			eventually(t, "a rebalance waits for the frozen member", time.Minute, func() bool {
				return f.groupState(t) == "PreparingRebalance" && m.partitions() == 0
			})
			began := time.Now()
			if err := m.stop(); err != nil {
				t.Errorf("Run: %v, want nil after a stop", err)
			}
			// The frozen member would be waited for a minute; half of that is not a measurement.
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("the stop took %s", took)
			}
		}
	})
}

// joinAndFreeze joins the group with a member that does not notice for most of a minute that the others rejoin.
func (f *fixture) joinAndFreeze(t *testing.T) {
	t.Helper()
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{ID: f.group, Brokers: []string{f.brokers}, Topics: []string{f.topic},
		SessionTimeout: 60 * time.Second, RebalanceTimeout: 60 * time.Second, HeartbeatInterval: 55 * time.Second, JoinGroupBackoff: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if _, err = g.Next(ctx); err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// groupState is what the broker says of the group.
func (f *fixture) groupState(t *testing.T) string {
	t.Helper()
	res, err := f.client.DescribeGroups(t.Context(), &kafka.DescribeGroupsRequest{GroupIDs: []string{f.group}})
	if err != nil || len(res.Groups) != 1 {
		return ""
	}
	return res.Groups[0].GroupState
}
