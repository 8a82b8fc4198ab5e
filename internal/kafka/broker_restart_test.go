package kafka_test

import (
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// A broker that was killed knows the members of its groups when it is back. kafka-go has forgotten who it was by then, and
// joins under another id; and an id that the broker gave while it failed may have reached no one at all. The group would wait for
// either until its session has timed out.
func TestAMemberComesBackAtOnceAfterItsBrokerWasKilled(t *testing.T) {
	t.Parallel()
	broker := enginetest.ApacheKafka(t)
	f := kafkatest.NewLog(t, broker, 2)
	var taken kafkatest.Journal
	const session = longSession
	m := f.Join(t, kafkatest.EachEvent(&taken), func(c *kafka.Config) { c.SessionTimeout, c.RebalanceTimeout = session, session })
	enginetest.Await(t, "the member has its partitions", func() bool { return m.Partitions() == 2 })
	for kill := range 3 {
		if kill == 2 { // the broker knows another one, by an id that the member has never been told
			joinAndFreeze(t, f, onlyMember(t, f).ClientID)
			enginetest.Await(t, "the member has lost a partition", func() bool { return m.Partitions() == 1 })
		}
		if err := broker.Kill(); err != nil {
			t.Fatal(err)
		}
		// It notices, and fails to say goodbye.
		enginetest.Await(t, "the member has no partitions", func() bool { return m.Partitions() == 0 })
		if err := broker.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		enginetest.Await(t, "the member has its partitions again", func() bool { return m.Partitions() == 2 })
		took := time.Since(back)
		t.Logf("it had its partitions again %s after the broker was back", took.Round(100*time.Millisecond))
		if took > session/2 {
			t.Error("it waited for a member that is gone")
		}
		f.RenewClient(t)
	}
	f.Produce(t, kafkatest.Numbered(1, 10)...)
	enginetest.Await(t, "all is taken", func() bool { return taken.Count() == 10 })
}

// onlyMember is the one member of the group.
func onlyMember(t *testing.T, f *kafkatest.Log) kafkago.DescribeGroupsResponseMember {
	t.Helper()
	res, err := f.Client.DescribeGroups(t.Context(), &kafkago.DescribeGroupsRequest{GroupIDs: []string{f.Group}})
	if err != nil || len(res.Groups) != 1 || len(res.Groups[0].Members) != 1 {
		t.Fatalf("the group: %+v, %v", res, err)
	}
	return res.Groups[0].Members[0]
}
