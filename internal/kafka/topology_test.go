package kafka_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tenantflow/internal/engine"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// A keeper is a handler that does nothing, and gives away the partition it was opened with.
type keeper struct {
	scale
	opened chan *kafka.Partition
}

func (k *keeper) Open(_ context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
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
	if kafkatest.IsRequest(b, kmsg.Metadata) {
		c.asking.n.Add(1)
	}
	return c.Conn.Write(b)
}

func TestPartitionCount_IsAskedFresh(t *testing.T) {
	kafkatest.OnBothBrokers(t, func(t *testing.T, broker *engine.Kafka) {
		f := kafkatest.NewLog(t, broker, 1)
		k := &keeper{opened: make(chan *kafka.Partition, 1)}
		var asked asking
		f.Join(t, k, func(c *kafka.Config) { c.Transport.Dial = asked.dial })
		p := kafkatest.Await(t, "the partition to be opened", k.opened)
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
		f.AddPartitions(t, 3)
		if n := count(time.Now()); n != 3 {
			t.Errorf("%d partitions as soon as the broker says 3", n)
		}
		sent, began := asked.n.Load(), time.Now()
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
		if n := asked.n.Load() - sent; n > 5+int64(time.Since(began)/time.Second) { // the client has its own, once in a while
			t.Errorf("%d requests for what was known", n)
		}
		asked.cut()
		if n := count(time.Now()); n != 3 {
			t.Errorf("%d partitions after the connection broke", n)
		}
	})
}
