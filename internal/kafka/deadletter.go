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
	"tenantflow/internal/retry"
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
	writer *kafkago.Writer
	group  string
	log    *slog.Logger
	count  *prometheus.CounterVec // by topic and reason
}

// maxDeadLetterBytes bounds one message as the client counts it. What a topic takes is the broker's to say, so this is
// only large enough never to be the limit.
const maxDeadLetterBytes = 64 << 20

// NewDeadLetters returns a publisher for one consumer group.
func NewDeadLetters(client *kafkago.Client, group string, log *slog.Logger, count *prometheus.CounterVec) *DeadLetters {
	return &DeadLetters{
		writer: &kafkago.Writer{
			Addr:         client.Addr,
			Transport:    client.Transport,
			Balancer:     Partitioner{},
			RequiredAcks: kafkago.RequireAll,
			BatchTimeout: 5 * time.Millisecond,
			BatchBytes:   maxDeadLetterBytes,
			MaxAttempts:  1, // tries again here, where it can be seen
		},
		group: group,
		log:   log,
		count: count,
	}
}

// Close waits for what is under way.
func (d *DeadLetters) Close() error { return d.writer.Close() }

// Publish writes the letters and returns when the broker has them all. It tries again for as long as ctx lasts, so a
// letter may be there twice; its origin (group, topic, partition, offset) identifies it.
func (d *DeadLetters) Publish(ctx context.Context, letters []DeadLetter, waiting func(error)) error {
	if err := d.publish(ctx, letters, waiting); err != nil || len(letters) == 0 {
		return err
	}
	waiting(nil)
	d.note(ctx, letters)
	return nil
}

// publish writes the letters. Those that the broker finds too large go as coordinates and hashes instead of bytes, which the
// letters given say afterwards.
func (d *DeadLetters) publish(ctx context.Context, letters []DeadLetter, waiting func(error)) error {
	if len(letters) == 0 {
		return nil
	}
	messages := make([]kafkago.Message, len(letters))
	for i := range letters {
		messages[i] = d.message(&letters[i])
	}
	err := retry.Do(ctx, func() error {
		if err := d.writer.WriteMessages(ctx, messages...); err != nil {
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

// shown is how many letters of one call of Publish are logged one by one. A producer that gets everything wrong may make
// tens of thousands a second.
const shown = 5

// note counts and logs letters that are published.
func (d *DeadLetters) note(ctx context.Context, letters []DeadLetter) {
	type kind struct {
		topic  string
		reason events.Reason
	}
	all, rest := map[kind]int{}, map[kind]int{}
	var order []kind // of the rest
	for i := range letters {
		l := &letters[i]
		s := kind{l.Record.Topic, l.Rejection.Reason}
		all[s]++
		if i < shown {
			d.log.WarnContext(ctx, "event went to the dead letters",
				slog.String("topic", l.Record.Topic), slog.Int("partition", l.Record.Partition), slog.Int64("offset", l.Record.Offset),
				slog.String("reason", string(l.Rejection.Reason)), slog.String("error", l.Rejection.Detail))
			continue
		}
		if rest[s]++; rest[s] == 1 {
			order = append(order, s)
		}
	}
	for _, s := range order {
		d.log.WarnContext(ctx, "more events went to the dead letters", slog.String("topic", s.topic), slog.String("reason", string(s.reason)), slog.Int("events", rest[s]))
	}
	if d.count == nil {
		return
	}
	for s, n := range all {
		d.count.WithLabelValues(s.topic, string(s.reason)).Add(float64(n))
	}
}
