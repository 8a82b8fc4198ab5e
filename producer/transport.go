package producer

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// connections are those of a producer's own transport. kafka-go leaves a request that was given up on its connection until its deadline, with a
// goroutine; so that nothing is left behind a producer, its connections are closed with it.
type connections struct {
	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

func (c *connections) transport(topic string) *kafka.Transport {
	dialer := net.Dialer{Timeout: 3 * time.Second}
	return &kafka.Transport{
		MetadataTopics: []string{topic},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.closed {
				_ = conn.Close()
				return nil, net.ErrClosed
			}
			c.open[conn] = struct{}{}
			return &connection{conn, c}, nil
		},
	}
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		_ = conn.Close()
	}
}

type connection struct {
	net.Conn
	of *connections
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c.Conn)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
