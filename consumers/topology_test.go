package consumers_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/consumers"
	"tenantflow/internal/engine"
)

// A keeper is a handler that does nothing, and gives away the partition it was opened with.
type keeper struct {
	scale
	opened chan *consumers.Partition
}

func (k *keeper) Open(_ context.Context, p *consumers.Partition) (consumers.BatchPartition, error) {
	select {
	case k.opened <- p:
	default:
	}
	return k, nil
}

// asking counts the metadata requests on a member's connections.
type asking struct {
	membership
	n atomic.Int64
}

func (a *asking) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := a.membership.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &askingConn{c, a}, nil
}

type askingConn struct {
	net.Conn
	asking *asking
}

func (c *askingConn) Write(b []byte) (int, error) {
	if isRequest(b, kmsg.Metadata) {
		c.asking.n.Add(1)
	}
	return c.Conn.Write(b)
}

// addPartitions gives the fixture's topic more partitions, and waits until the broker says so itself.
func (f *fixture) addPartitions(t *testing.T, n int) {
	t.Helper()
	more := make([]kafka.TopicPartitionAssignment, n-f.partitions)
	for i := range more {
		more[i].BrokerIDs = brokerIDs(t, f)
	}
	res, err := f.client.CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: f.topic, Count: int32(n), TopicPartitionAssignments: more}}})
	if err == nil {
		err = res.Errors[f.topic]
	}
	if err != nil {
		t.Fatal(err)
	}
	f.partitions = n
	conn, err := kafka.DialContext(t.Context(), "tcp", f.brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "the broker knows the new partitions", time.Minute, func() bool {
		all, err := conn.ReadPartitions(f.topic)
		return err == nil && len(all) == n
	})
}

func TestPartitionCount_IsAskedFresh(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := newLog(t, broker, 1)
		k := &keeper{opened: make(chan *consumers.Partition, 1)}
		var asked asking
		f.join(t, k, func(c *consumers.Config) { c.Transport.Dial = asked.dial })
		p := await(t, "the partition to be opened", k.opened)
		count := func(notBefore time.Time) int {
			t.Helper()
			n, err := p.PartitionCount(t.Context(), notBefore)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := count(time.Now()); n != 1 {
			t.Fatalf("%d partitions, want 1", n)
		}
		before := time.Now()
		f.addPartitions(t, 3)
		if n := count(time.Now()); n != 3 {
			t.Errorf("%d partitions as soon as the broker says 3", n)
		}
		sent := asked.n.Load()
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				for range 200 {
					if n, err := p.PartitionCount(t.Context(), before); n != 3 || err != nil {
						t.Errorf("%d partitions, %v", n, err)
					}
				}
			})
		}
		calls.Wait()
		if n := asked.n.Load() - sent; n > 5 { // the client has its own, once in a while
			t.Errorf("%d requests for what was known", n)
		}
		asked.cut()
		if n := count(time.Now()); n != 3 {
			t.Errorf("%d partitions after the connection broke", n)
		}
	})
}
