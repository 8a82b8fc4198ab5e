package kafka

import (
	"context"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"tenantflow/internal/broker"
)

// A topology asks a broker how many partitions topics have. kafka-go's client answers that from a cache, up to six seconds
// old; here an answer is never older than the caller says. It keeps one connection, and callers that come while it asks
// share the next answer.
type topology struct {
	transport *kafkago.Transport
	brokers   []string
	topics    []string

	turn   chan struct{} // holds one token: who has it may use what follows
	conn   *broker.Conn
	asked  time.Time // before the last answer was asked for
	counts map[string]partitionCount
}

type partitionCount struct {
	n   int
	err error // the topic's
}

func newTopology(cfg *Config) *topology {
	t := &topology{transport: cfg.Transport, brokers: cfg.Brokers, topics: cfg.Topics, turn: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	return t
}

// count is how many partitions a topic has, read from a broker at or after a time. The error is a kafka-go Error where the
// broker answered with one: UnknownTopicOrPartition above all.
func (t *topology) count(ctx context.Context, topic string, notBefore time.Time) (int, error) {
	select {
	case <-t.turn:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { t.turn <- struct{}{} }()
	if t.counts == nil || t.asked.Before(notBefore) {
		if err := t.ask(ctx); err != nil {
			return 0, fmt.Errorf("count the partitions of %s: %w", topic, err)
		}
	}
	c, ok := t.counts[topic]
	switch {
	case !ok:
		return 0, fmt.Errorf("count the partitions of %s: the answer does not name it", topic)
	case c.err != nil:
		return 0, fmt.Errorf("count the partitions of %s: %w", topic, c.err)
	}
	return c.n, nil
}

// ask reads the number of partitions of all topics. A connection that was kept may be broken by now, so a new one is tried
// before it gives up.
func (t *topology) ask(ctx context.Context) error {
	const patience = 15 * time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %s: %w", patience, context.DeadlineExceeded))
	defer cancel()
	kept := t.conn != nil
	err := t.askOnce(ctx)
	if err != nil && kept && ctx.Err() == nil {
		err = t.askOnce(ctx)
	}
	return err
}

func (t *topology) askOnce(ctx context.Context) error {
	if t.conn == nil {
		var err error
		if t.conn, err = broker.ConnectAny(ctx, t.transport, t.brokers); err != nil {
			return err
		}
	}
	asked := time.Now()
	answer, err := t.conn.RoundTrip(ctx, &metadata.Request{TopicNames: t.topics})
	if err != nil {
		t.close()
		return err
	}
	res, ok := answer.(*metadata.Response)
	if !ok {
		return fmt.Errorf("unexpected answer %T", answer)
	}
	t.asked, t.counts = asked, map[string]partitionCount{}
	for _, topic := range res.Topics {
		c := partitionCount{n: len(topic.Partitions)}
		if topic.ErrorCode != 0 {
			c.err = kafkago.Error(topic.ErrorCode)
		}
		t.counts[topic.Name] = c
	}
	return nil
}

// close closes the connection. The topology may be used again.
func (t *topology) close() {
	if t.conn != nil {
		_ = t.conn.Close() // nothing is under way
		t.conn = nil
	}
}

// PartitionCount is how many partitions the topic has, read from a broker at or after notBefore. It costs no request where
// one was asked for since then, for any partition of the group's member. Its errors are transient; the topic may be away.
func (p *Partition) PartitionCount(ctx context.Context, notBefore time.Time) (int, error) {
	return p.group.topology.count(ctx, p.topic, notBefore)
}
