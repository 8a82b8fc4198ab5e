package replay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/retry"
	"tenantflow/internal/task"
	"tenantflow/internal/topic"
)

// A Message is a record to be published.
type Message struct {
	Partition int // AnyPartition: the key decides
	Key       []byte
	Value     []byte
	Headers   []events.Header
	Owner     Owner // for a Guard
	Subject   any   // what the caller knows it by
}

// A Brake says when to publish less, see [LagBrake].
type Brake interface {
	// Wait returns when n more events may be published. waiting is called with words while it does not.
	Wait(ctx context.Context, n int, waiting func(string)) error
}

// PublisherConfig is what a Publisher needs.
type PublisherConfig struct {
	Client *kafka.Client
	Topic  string // with its prefix

	// Rate is how many events a second are published at most; 0: as many as the brake lets through.
	Rate float64

	// Brake, if set, is asked before each portion of events.
	Brake Brake

	// Keep, if set, is asked right before each try to send some messages, and returns those that are still to be sent: between a
	// decision and its publication a user may have asked to be erased. It may change the slice. An error ends the Publish.
	Keep func(ctx context.Context, some []Message) ([]Message, error)

	// Waiting, if set, is called with what a Publish waits for; empty: nothing any more.
	Waiting func(string)
}

// A Publisher writes records to the partitions that they name, in order, at a bounded rate. It is for one goroutine.
type Publisher struct {
	cfg    PublisherConfig
	writer *kafka.Writer
	most   int       // bytes of a message
	next   time.Time // when the rate lets the next portion through
}

// room is what Kafka adds to a message (an upper bound), and to a batch.
const (
	messageFrame = 32
	headerFrame  = 10
	batchFrame   = 128
)

// portion is how many events are published between two looks at the brake.
const portion = 2000

// NewPublisher makes a publisher for a topic that exists.
func NewPublisher(ctx context.Context, cfg PublisherConfig) (*Publisher, error) {
	limits, err := topic.MaxMessageBytes(ctx, cfg.Client, cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("look how large a message of %s may be: %w", cfg.Topic, err)
	}
	if cfg.Waiting == nil {
		cfg.Waiting = func(string) {}
	}
	return &Publisher{cfg: cfg, most: limits[cfg.Topic], writer: &kafka.Writer{
		Addr:         cfg.Client.Addr,
		Transport:    cfg.Client.Transport,
		Topic:        cfg.Topic,
		Balancer:     &placer{},
		RequiredAcks: kafka.RequireAll,
		BatchSize:    portion,
		BatchBytes:   int64(max(limits[cfg.Topic]-batchFrame, 1)),
		BatchTimeout: 5 * time.Millisecond,
		MaxAttempts:  1, // tries again here, where it can be seen
	}}, nil
}

// Close waits for what is under way.
func (p *Publisher) Close() error { return p.writer.Close() }

// Fits reports whether the topic takes a message of that size.
func (p *Publisher) Fits(m *Message) bool {
	size := len(m.Key) + len(m.Value) + messageFrame + batchFrame
	for _, h := range m.Headers {
		size += len(h.Key) + len(h.Value) + headerFrame
	}
	return size <= p.most
}

// Publish returns when the brokers have all messages, which then belong to the publisher. It tries again for as long as ctx
// lasts, so a message may be there twice. The error is a *task.FatalError where the broker refuses one for good.
func (p *Publisher) Publish(ctx context.Context, messages []Message) error {
	for len(messages) > 0 {
		n := min(len(messages), portion)
		if p.cfg.Rate > 0 {
			n = min(n, max(1, int(p.cfg.Rate/5)))
			if err := retry.Pause(ctx, max(0, time.Until(p.next))); err != nil {
				return err
			}
		}
		if p.cfg.Brake != nil {
			if err := p.cfg.Brake.Wait(ctx, n, p.cfg.Waiting); err != nil {
				return err
			}
		}
		if p.cfg.Rate > 0 {
			p.next = time.Now().Add(time.Duration(float64(n) / p.cfg.Rate * float64(time.Second)))
		}
		if err := p.send(ctx, messages[:n]); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

// send writes messages until the brokers have them all.
func (p *Publisher) send(ctx context.Context, messages []Message) error {
	delays := retry.New()
	for {
		if p.cfg.Keep != nil {
			var err error
			if messages, err = p.cfg.Keep(ctx, messages); err != nil {
				return err
			}
		}
		out := make([]kafka.Message, len(messages))
		for i := range messages {
			m := &messages[i]
			out[i] = kafka.Message{Key: m.Key, Value: m.Value, WriterData: m.Partition, Headers: make([]kafka.Header, len(m.Headers))}
			for j, h := range m.Headers {
				out[i].Headers[j] = kafka.Header{Key: h.Key, Value: h.Value}
			}
		}
		err := p.writer.WriteMessages(ctx, out...)
		if err == nil {
			p.cfg.Waiting("")
			return nil
		}
		err = fmt.Errorf("publish %d events to %s: %w", len(out), p.cfg.Topic, err)
		if ctx.Err() != nil {
			return err
		}
		if refused(err) {
			return &task.FatalError{Err: err}
		}
		// Which of them the broker has does not matter: all of them once more, in their order.
		p.cfg.Waiting(err.Error())
		if delays.Wait(ctx) != nil {
			return err
		}
	}
}

// refused reports whether a broker refuses messages for good.
func refused(err error) bool {
	var large kafka.MessageTooLargeError
	if errors.As(err, &large) {
		return true
	}
	var many kafka.WriteErrors
	if errors.As(err, &many) {
		return slices.ContainsFunc(many, func(e error) bool { return e != nil && refused(e) })
	}
	for _, code := range []kafka.Error{kafka.MessageSizeTooLarge, kafka.TopicAuthorizationFailed, kafka.InvalidRecord} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// A placer puts a message into the partition that it names, and one that names none where its key belongs.
type placer struct{ byKey kafka.Murmur2Balancer }

// Balance chooses one of the partitions.
func (p *placer) Balance(m kafka.Message, partitions ...int) int {
	if id, named := m.WriterData.(int); named && slices.Contains(partitions, id) {
		return id
	}
	if len(m.Key) == 0 {
		return partitions[rand.IntN(len(partitions))] // #nosec G404 -- any will do
	}
	return p.byKey.Balance(m, partitions...)
}
