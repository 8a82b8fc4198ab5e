package kafka_test

import (
	"context"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// A process that stops in the middle of a rebalance does not wait for a member that does not answer any more.
func TestGroup_StopInterruptsAJoin(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		for _, first := range []bool{true, false} {
			f := kafkatest.NewLog(t, broker, 2)
			patient := func(c *kafka.Config) {
				c.SessionTimeout, c.RebalanceTimeout, c.Drain = longSession, longSession, 5*time.Second
			}
			var taken kafkatest.Journal
			var m *kafkatest.Member
			if !first {
				m = f.Join(t, kafkatest.EachEvent(&taken), patient)
				enginetest.Await(t, "it has the partitions", func() bool { return m.Partitions() == 2 })
			}
			joinAndFreeze(t, f, "frozen")
			if first {
				m = f.Join(t, kafkatest.EachEvent(&taken), patient)
			} else {
				enginetest.Await(t, "it has lost one", func() bool { return m.Partitions() == 1 })
				third := f.Join(t, kafkatest.EachEvent(&taken), patient)
				defer func() { _ = third.Stop() }()
			}
			enginetest.Await(t, "a rebalance waits for the frozen member", func() bool {
				return groupState(t, f) == "PreparingRebalance" && m.Partitions() == 0
			})
			m.Cancel()
			select {
			case <-m.Ended:
			case <-time.After(longSession / 2): // the frozen member would be waited for as long again
				t.Fatal("the stop waits for the frozen member")
			}
			if m.Result != nil {
				t.Errorf("Run: %v, want nil after a stop", m.Result)
			}
		}
	})
}

// joinAndFreeze joins the group with a member that does not notice, for most of a long session, that the others rejoin.
func joinAndFreeze(t *testing.T, f *kafkatest.Log, clientID string) {
	t.Helper()
	g, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{ID: f.Group, Brokers: []string{f.Brokers}, Topics: []string{f.Topic}, Dialer: &kafkago.Dialer{ClientID: clientID},
		SessionTimeout: longSession, RebalanceTimeout: longSession, HeartbeatInterval: longSession - 5*time.Second, JoinGroupBackoff: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
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
func groupState(t *testing.T, f *kafkatest.Log) string {
	t.Helper()
	res, err := f.Client.DescribeGroups(t.Context(), &kafkago.DescribeGroupsRequest{GroupIDs: []string{f.Group}})
	if err != nil || len(res.Groups) != 1 {
		return ""
	}
	return res.Groups[0].GroupState
}
