package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/logs"
	"tenantflow/internal/retry"
	"tenantflow/internal/trace"
)

// A DeadLetter is a record that can't be taken, and why.
type DeadLetter struct {
	Record    events.Record // with bytes of its own
	Rejection *events.Rejection
	Attempts  int
}

// CopyRecord returns r with bytes of its own. Nil keys and values stay nil.
func CopyRecord(r *events.Record) events.Record {
	c := *r
	size := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		size += len(h.Value)
	}
	buf := make([]byte, 0, size)
	keep := func(v []byte) []byte {
		if v == nil {
			return nil
		}
		at := len(buf)
		buf = append(buf, v...)
		return buf[at:len(buf):len(buf)]
	}
	c.Key, c.Value = keep(r.Key), keep(r.Value)
	c.Headers = make([]events.Header, len(r.Headers))
	for i, h := range r.Headers {
		c.Headers[i] = events.Header{Key: h.Key, Value: keep(h.Value)}
	}
	return c
}

// RecordBytes is about how much memory a copied record holds.
func RecordBytes(r *events.Record) int64 {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 40
	}
	return int64(n + 200)
}

// DeadLetters publishes to the dead letter topics.
type DeadLetters struct {
	many, one *kafkago.Writer // of letters that fit into a batch of maxBatchBytes with others, and of larger ones
	group     string
	tally     *logs.Tally[letterKind, origin]
	count     *prometheus.CounterVec // by topic and reason
	tracer    *trace.Tracer
}

const (
	// maxLetterBytes bounds one message as the client counts it. What a topic takes is the broker's to say, so this is only
	// large enough never to be the limit.
	maxLetterBytes = 64 << 20

	// maxBatchBytes bounds several of them together. A batch is one message to the broker, whose limit is 1 MiB where it has not been
	// changed; maxBatchLetters is how many then fit that are as large as usual.
	maxBatchBytes   = 900 << 10
	maxBatchLetters = 1000
)

// NewDeadLetters returns a publisher for one consumer group.
func NewDeadLetters(client *kafkago.Client, group string, log *slog.Logger, count *prometheus.CounterVec) *DeadLetters {
	writer := func(letters int, bytes int64) *kafkago.Writer {
		return &kafkago.Writer{
			Addr:         client.Addr,
			Transport:    client.Transport,
			Balancer:     Partitioner{},
			RequiredAcks: kafkago.RequireAll,
			BatchTimeout: 5 * time.Millisecond,
			BatchSize:    letters,
			BatchBytes:   bytes,
			MaxAttempts:  1, // tries again here, where it can be seen
		}
	}
	return &DeadLetters{
		many:  writer(maxBatchLetters, maxBatchBytes),
		one:   writer(1, maxLetterBytes),
		group: group,
		tally: newLetterTally(log),
		count: count,
	}
}

func (d *DeadLetters) traced(tracer *trace.Tracer) *DeadLetters {
	d.tracer = tracer
	return d
}

// Close waits for what is under way.
func (d *DeadLetters) Close() error {
	d.tally.Close()
	return errors.Join(d.many.Close(), d.one.Close())
}

// Publish writes the letters and returns when the broker has them all. It tries again for as long as ctx lasts, so a
// letter may be there twice; its origin (group, topic, partition, offset) identifies it.
func (d *DeadLetters) Publish(ctx context.Context, letters []DeadLetter, waiting func(error)) error {
	if len(letters) == 0 {
		return nil
	}
	links := d.tracer.NewLinks()
	for i := range letters {
		links.Add(&letters[i].Record)
	}
	ctx, span := d.tracer.DeadLetters(ctx, events.DeadLetterTopic(letters[0].Record.Topic), len(letters), links)
	err := d.publish(ctx, letters, waiting)
	span.End(err)
	if err != nil {
		return err
	}
	waiting(nil)
	d.note(letters)
	return nil
}

// publish writes the letters. Those that the broker finds too large go as coordinates and hashes instead of bytes, which the
// letters given say afterwards.
func (d *DeadLetters) publish(ctx context.Context, letters []DeadLetter, waiting func(error)) error {
	messages := make([]kafkago.Message, len(letters))
	for i := range letters {
		messages[i] = d.message(&letters[i])
	}
	err := retry.Do(ctx, func() error {
		if err := d.write(ctx, messages); err != nil {
			return fmt.Errorf("publish %d dead letters: %w", len(letters), err)
		}
		return nil
	}, func(err error) error {
		if tooLarge(err) || ctx.Err() != nil {
			return err
		}
		waiting(err) // which of them the broker took does not matter: all of them once more
		return nil
	})
	if tooLarge(err) {
		return d.divide(ctx, letters, waiting)
	}
	return err
}

// write writes messages in their order.
func (d *DeadLetters) write(ctx context.Context, messages []kafkago.Message) error {
	return writeInOrder(ctx, d.many, d.one, messages)
}

// writeInOrder writes messages in their order: those that need a batch of their own with one, the others with many.
func writeInOrder(ctx context.Context, many, one *kafkago.Writer, messages []kafkago.Message) error {
	for len(messages) > 0 {
		writer, n := one, 1
		if !large(&messages[0]) {
			writer = many
			for n < len(messages) && !large(&messages[n]) {
				n++
			}
		}
		if err := writer.WriteMessages(ctx, messages[:n]...); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

// large reports whether a message needs a batch of its own.
func large(m *kafkago.Message) bool {
	const around = 100 // bytes at most that the client counts besides, for a message and for each header
	n := len(m.Key) + len(m.Value) + around
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value) + around
	}
	return n > maxBatchBytes
}

// tooLarge reports whether the broker, or the client before it, found a message too large.
func tooLarge(err error) bool {
	var many kafkago.WriteErrors
	if errors.As(err, &many) {
		return slices.ContainsFunc(many, func(e error) bool { return e != nil && tooLarge(e) })
	}
	var client kafkago.MessageTooLargeError
	return errors.As(err, &client) || errors.Is(err, kafkago.MessageSizeTooLarge)
}

// divide publishes letters that are too large together, by halves, until one is alone.
func (d *DeadLetters) divide(ctx context.Context, letters []DeadLetter, waiting func(error)) error {
	if half := len(letters) / 2; half > 0 {
		if err := d.publish(ctx, letters[:half], waiting); err != nil {
			return err
		}
		return d.publish(ctx, letters[half:], waiting)
	}
	l := &letters[0]
	if l.Rejection.Reason == events.TooLarge {
		return fmt.Errorf("publish dead letter of %s/%d/%d: too large even without its bytes", l.Record.Topic, l.Record.Partition, l.Record.Offset)
	}
	l.Rejection = events.Reject(events.TooLarge, "%s: %s; the original bytes exceed what the dead letter topic takes", l.Rejection.Reason, l.Rejection.Detail)
	return d.publish(ctx, letters, waiting)
}

func (d *DeadLetters) message(l *DeadLetter) kafkago.Message {
	key, value, headers := events.NewDeadLetter(&l.Record, d.group, l.Rejection, l.Attempts, time.Now())
	return message(events.DeadLetterTopic(l.Record.Topic), key, value, headers)
}
