package topic

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/semaphore"

	"tenantflow/internal/kafka"
)

const (
	// maxUnacknowledged is how many messages may be on their way: enough to fill a batch for each of many partitions.
	maxUnacknowledged = 50_000
	batchMessages     = 10_000
	linger            = 10 * time.Millisecond
	// batchFrame is what a record batch takes beside its records (61 bytes in format 2), with some room.
	batchFrame = 128
)

// A Publisher writes many messages to one topic, fast and in order: messages of one key arrive in the order in which
// they were published. The partition of a key is that of Kafka's Java client (murmur2), so resends by other programs
// meet their originals. Each message is acknowledged by all in-sync replicas before it counts.
//
// When an acknowledgement gets lost the message is sent again and may stand in the log twice.
type Publisher struct {
	writer       *kafkago.Writer
	room         *semaphore.Weighted
	acknowledged atomic.Int64

	mu      sync.Mutex
	failure error // the first one
}

// NewPublisher makes a publisher for a topic that exists. It asks the broker for the topic's largest message, so
// that a batch is never larger. A batch is tried attempts times; 0 means 10, about 10 seconds with no broker there.
func NewPublisher(ctx context.Context, client *kafkago.Client, topic string, attempts int) (*Publisher, error) {
	limits, err := MaxMessageBytes(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	p := &Publisher{room: semaphore.NewWeighted(maxUnacknowledged)}
	p.writer = &kafkago.Writer{
		Addr:         client.Addr,
		Transport:    client.Transport,
		Topic:        topic,
		Balancer:     kafka.Partitioner{},
		RequiredAcks: kafkago.RequireAll,
		MaxAttempts:  attempts,
		BatchSize:    batchMessages,
		BatchBytes:   int64(max(limits[topic]-batchFrame, 1)),
		BatchTimeout: linger,
		Async:        true,
		Completion:   p.complete,
	}
	return p, nil
}

// Publish hands messages over and returns before they are acknowledged; it waits while too many are on their way. The
// error may be about earlier messages. After an error no more are taken. The messages belong to the publisher.
func (p *Publisher) Publish(ctx context.Context, messages ...kafkago.Message) error {
	for len(messages) > 0 {
		part := messages[:min(len(messages), maxUnacknowledged)]
		messages = messages[len(part):]
		if err := p.room.Acquire(ctx, int64(len(part))); err != nil {
			return fmt.Errorf("publish to %s: %w", p.writer.Topic, err)
		}
		if err := p.failed(); err != nil {
			return err
		}
		if err := p.writer.WriteMessages(ctx, part...); err != nil {
			p.room.Release(int64(len(part)))
			return p.fail(tooLarge(err))
		}
	}
	return nil
}

// complete is called once for every batch.
func (p *Publisher) complete(batch []kafkago.Message, err error) {
	if err == nil {
		p.acknowledged.Add(int64(len(batch)))
	} else {
		_ = p.fail(err) // returned by the next Publish or by Close
	}
	p.room.Release(int64(len(batch)))
}

// tooLarge takes the messages out of an error that carries them all.
func tooLarge(err error) error {
	var large kafkago.MessageTooLargeError
	if errors.As(err, &large) {
		return fmt.Errorf("a message of %d bytes is larger than the topic takes", len(large.Message.Key)+len(large.Message.Value))
	}
	return err
}

// fail keeps the first failure and returns it.
func (p *Publisher) fail(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure == nil {
		p.failure = fmt.Errorf("publish to %s: %w", p.writer.Topic, err)
	}
	return p.failure
}

func (p *Publisher) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// Acknowledged is how many messages are in the log for sure.
func (p *Publisher) Acknowledged() int64 { return p.acknowledged.Load() }

// Close waits until every message that was handed over is acknowledged or given up, and returns the first failure.
func (p *Publisher) Close() error {
	if err := p.writer.Close(); err != nil {
		return errors.Join(p.failed(), fmt.Errorf("close the writer of %s: %w", p.writer.Topic, err))
	}
	return p.failed()
}

// MaxBytes is the size of the largest message the topic takes, key, headers and what Kafka adds included.
func (p *Publisher) MaxBytes() int { return int(p.writer.BatchBytes) }
