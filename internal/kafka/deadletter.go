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
	writer *kafkago.Writer
	group  string
	tally  *logs.Tally[letterKind, origin]
	count  *prometheus.CounterVec // by topic and reason
	tracer *trace.Tracer
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
	return d.writer.Close()
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

// letterKind is what the log tells dead letters apart by; the metric does too.
type letterKind struct {
	topic  string
	reason events.Reason
}

// origin is what the log says of a dead letter.
type origin struct {
	partition int
	offset    int64
	id        []byte // of the event, if its record has it in a header
	detail    string
	record    *events.Record // which may name a trace
}

// newLetterTally logs a letter, or a flood of them by topic and reason: a producer that gets everything wrong may make a hundred
// thousand a second.
//
//nolint:contextcheck,nolintlint // the last line of a flood comes after the call that published it
func newLetterTally(log *slog.Logger) *logs.Tally[letterKind, origin] {
	ctx := context.Background()
	return logs.NewTally(
		func(k letterKind, o origin) {
			attrs := []slog.Attr{slog.String("topic", k.topic), slog.Int("partition", o.partition), slog.Int64("offset", o.offset)}
			if len(o.id) > 0 {
				attrs = append(attrs, slog.String("event_id", string(o.id)))
			}
			if id := trace.ID(o.record); id != "" {
				attrs = append(attrs, slog.String("trace_id", id))
			}
			log.LogAttrs(ctx, slog.LevelWarn, "event went to the dead letters",
				append(attrs, slog.String("reason", string(k.reason)), slog.String("error", o.detail))...)
		},
		func(k letterKind, n int, first origin) {
			of := []any{slog.Int("partition", first.partition), slog.Int64("offset", first.offset), slog.String("event_id", string(first.id))}
			if id := trace.ID(first.record); id != "" {
				of = append(of, slog.String("trace_id", id))
			}
			log.LogAttrs(ctx, slog.LevelWarn, "more events went to the dead letters", slog.String("topic", k.topic), slog.String("reason", string(k.reason)),
				slog.Int("events", n), slog.Duration("within", logs.TallyInterval), slog.Group("first", append(of, slog.String("error", first.detail))...),
				slog.String("metric", "tenantflow_dead_letters_total"))
		})
}

// eventID is the id of the event in a record of binary content mode, as the log shows it. It is a part of the record.
func eventID(r *events.Record) []byte {
	const most = 200 // a malformed one may have any length
	for i := range r.Headers {
		if h := &r.Headers[i]; h.Key == "ce_id" {
			return h.Value[:min(len(h.Value), most)]
		}
	}
	return nil
}

// note counts and logs letters that are published.
func (d *DeadLetters) note(letters []DeadLetter) {
	all := map[letterKind]int{}
	for i := range letters {
		l := &letters[i]
		k := letterKind{l.Record.Topic, l.Rejection.Reason}
		all[k]++
		d.tally.Add(k, origin{l.Record.Partition, l.Record.Offset, eventID(&l.Record), l.Rejection.Detail, &l.Record})
	}
	if d.count == nil {
		return
	}
	for k, n := range all {
		d.count.WithLabelValues(k.topic, string(k.reason)).Add(float64(n))
	}
}
