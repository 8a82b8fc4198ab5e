package kafka_test

import (
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// A broker that was killed knows the members of its groups when it is back. kafka-go has forgotten who it was by then, and
// joins under another name: the group would wait for the old one until its session has timed out.
func TestAMemberComesBackAtOnceAfterItsBrokerWasKilled(t *testing.T) {
	t.Parallel()
	broker := enginetest.ApacheKafka(t)
	f := kafkatest.NewLog(t, broker, 2)
	var taken kafkatest.Journal
	const session = enginetest.Patience / 2
	m := f.Join(t, kafkatest.EachEvent(&taken), func(c *kafka.Config) { c.SessionTimeout, c.RebalanceTimeout = session, session })
	enginetest.Await(t, "the member has its partitions", func() bool { return m.Partitions() == 2 })
	// A broker that fails while it takes the member in again may know it under an id that it has told to none. So it may take a session
	// once, but not each time.
	soon := false
	for kill := 0; !soon; kill++ {
		if kill == 4 {
			t.Fatalf("after %d kills its partitions never came back before half a session was over", kill)
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
		soon = time.Since(back) < session/2
		t.Logf("it had its partitions again %s after the broker was back", time.Since(back).Round(100*time.Millisecond))
	}
	f.RenewClient(t)
	f.Produce(t, kafkatest.Numbered(1, 10)...)
	enginetest.Await(t, "all is taken", func() bool { return taken.Count() == 10 })
}
